"""Trains the demo's two models on clips rendered without end: VideoMAE-tiny (the host) and X3D-tiny (the proposal).

    python tools/train_demo.py videomae --total-clips 218000 --out runs/videomae
    python tools/train_demo.py x3d --total-clips 84000 --out runs/x3d

Run again with the same --out to go on from the last checkpoint. The proposal learns by classification alone. The host
learns by classification and token labels, and at last by classification of whole crops alone, always dense: it never
sees a pruned clip.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from demo_networks import TokenLabels, X3DOnClip, build_model, factor_loss, stage_loss, vit_tokens
from demo_stream import RECIPES, SPEC, Recipe, batches, normalise, validation_set
from digit_scenes import DIGITS, MOTIONS
from torch import Tensor, nn

from vidprune.models.videomae import VideoMAE


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: tuple[np.ndarray, np.ndarray, np.ndarray], device: torch.device
) -> dict[str, float]:
    """Single-view accuracies on validation renders; for a proposal also the actor's share in its top 30 % tokens."""
    model.eval()
    frames, labels, masks = data
    totals = dict.fromkeys(("loss", "digit", "motion", "joint", "cover30"), 0.0)
    for first in range(0, len(labels), 40):
        clip = normalise(torch.from_numpy(frames[first : first + 40]).to(device).permute(0, 4, 1, 2, 3).float())
        target = torch.from_numpy(labels[first : first + 40]).to(device)
        logits = model(clip)
        totals["loss"] += float(factor_loss(logits, target)) * len(target)
        digit = logits[:, : len(DIGITS)].argmax(1) == target // len(MOTIONS)
        motion = logits[:, len(DIGITS) :].argmax(1) == target % len(MOTIONS)
        for name, hit in (("digit", digit), ("motion", motion), ("joint", digit & motion)):
            totals[name] += float(hit.sum())
        if isinstance(model, X3DOnClip):
            totals["cover30"] += float(coverage(model.features(clip), masks[first : first + 40], 0.3).sum())
    return {name: value / len(labels) for name, value in totals.items()}


def coverage(features: Tensor, masks: np.ndarray, keep_ratio: float) -> Tensor:
    """Share of each clip's actor opacity [B] inside the top tokens of the channel-mean map."""
    scores = F.interpolate(features.mean(1, keepdim=True), SPEC.grid.shape, mode="trilinear", align_corners=True)
    kept = scores.flatten(1).topk(int(SPEC.grid.num_tokens * keep_ratio), dim=1).indices.cpu()
    mass = torch.from_numpy(masks)
    return mass.gather(1, kept).sum(1) / mass.sum(1).clamp_min(1e-6)


def learning_rate(recipe: Recipe, step: int, clips_left: int) -> float:
    """Linear warm-up, constant, then linear to zero over the last `decay_clips`."""
    return recipe.learning_rate * min((step + 1) / recipe.warmup_steps, 1.0, clips_left / recipe.decay_clips)


def train(name: str, total_clips: int, out: Path, seed: int, device: torch.device) -> None:
    recipe = RECIPES[name]
    torch.manual_seed(seed)
    model = build_model(name).to(device)
    ema = copy.deepcopy(model)
    token_labels = TokenLabels().to(device)
    decay = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    if isinstance(model, VideoMAE):
        rest += token_labels.parameters()
    groups = [{"params": decay, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    seen, step, path = 0, 0, out / "checkpoint.pt"
    if path.exists():
        state = torch.load(path, weights_only=True, map_location=device)
        model.load_state_dict(state["model"])
        ema.load_state_dict(state["ema"])
        token_labels.load_state_dict(state["token_labels"])
        optimizer.load_state_dict(state["optimizer"])
        seen, step = state["seen"], state["step"]
    out.mkdir(parents=True, exist_ok=True)
    val = validation_set(240, seed=0)
    loss_sum, loss_count, saved, started = 0.0, 0, time.monotonic(), time.monotonic()
    stream = batches(recipe, seed, seen, step, total_clips)
    while seen < total_clips:
        stage, (frames, labels, opacity) = next(stream)
        clip, labels = normalise(frames.to(device).float()), labels.to(device)
        model.train()
        if isinstance(model, VideoMAE):
            tokens = vit_tokens(model, clip, stage, np.random.default_rng([seed, step]))
            loss = stage_loss(model.forward_head(tokens), labels, stage)
            if opacity is not None and not recipe.is_decaying(seen, total_clips):
                loss = loss + token_labels.loss(tokens, labels, opacity.to(device))
        else:
            loss = stage_loss(model(clip), labels, stage)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(recipe, step, total_clips - seen)
        optimizer.step()
        update_ema(ema, model, min(recipe.ema_decay, (1 + step) / (10 + step)))
        seen, step = seen + recipe.batch_size, step + 1
        loss_sum, loss_count = loss_sum + loss.item(), loss_count + 1
        if time.monotonic() - saved > 60 or seen >= total_clips:
            state = {"model": model.state_dict(), "ema": ema.state_dict(), "token_labels": token_labels.state_dict()}
            state |= {"optimizer": optimizer.state_dict()}
            torch.save({**state, "seen": seen, "step": step}, path)
            row = {"clips": seen, "minutes": (time.monotonic() - started) / 60, "difficulty": stage.difficulty}
            row |= {"train_loss": loss_sum / loss_count, **evaluate(ema, val, device)}
            append_row(out / "log.csv", row)
            loss_sum, loss_count, saved = 0.0, 0, time.monotonic()


@torch.no_grad()
def update_ema(ema: nn.Module, model: nn.Module, decay: float) -> None:
    for average, value in zip(ema.state_dict().values(), model.state_dict().values(), strict=True):
        if average.dtype.is_floating_point:
            average.lerp_(value, 1 - decay)
        else:
            average.copy_(value)


def append_row(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(row)
        writer.writerow([f"{v:.4g}" if isinstance(v, float) else v for v in row.values()])
    print(" ".join(f"{k}={v:.4g}" for k, v in row.items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(RECIPES))
    parser.add_argument("--total-clips", type=int, required=True, help="length of training, in rendered clips")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the log")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)
    train(args.model, args.total_clips, args.out, args.seed, torch.device(args.device))


if __name__ == "__main__":
    main()
