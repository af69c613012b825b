"""Trains the demo's two models on clips rendered without end: VideoMAE-tiny (the host) and X3D-tiny (the proposal).

    python tools/train_demo.py videomae --total-clips 200000 --out runs/videomae
    python tools/train_demo.py x3d --total-clips 100000 --out runs/x3d

Run again with the same --out to go on from the last checkpoint. Both models learn by classification alone: the actor
masks are read only to report, on validation renders, how much of the actor the proposal map would keep.
"""

from __future__ import annotations

import argparse
import copy
import csv
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from digit_images import digit_images
from render_digits import DIGITS, HEIGHT, MOTIONS, NUM_FRAMES, SPLITS, WIDTH, make_scene, render
from torch import Tensor, nn

from vidprune.models.videomae import VIDEOMAE_SPECS, VideoMAE
from vidprune.proposals.x3d_tiny import X3D_TINY_FRAMES, X3D_TINY_SIDE, build_x3d_tiny

SPEC = VIDEOMAE_SPECS["videomae_tiny"]
FRAME_STRIDE = 4
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)
NUM_FACTORS = len(DIGITS) + len(MOTIONS)


@dataclass(frozen=True)
class Recipe:
    """Optimisation settings of one model, and how many samples it sees in each stage before the whole crops."""

    image_samples: int  # single tubelets of one digit, for the digit alone
    zoom_clips: int  # windows around the actor
    ramp_clips: int  # whole crops of easier scenes
    mixed: bool  # whether every other step goes on with windows
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05
    warmup_steps: int = 100
    ema_decay: float = 0.998
    decay_clips: int = 24_000  # at the end of training, over which the learning rate falls to zero


RECIPES = {
    "videomae": Recipe(image_samples=144_000, zoom_clips=24_000, ramp_clips=16_000, mixed=True, batch_size=16, learning_rate=1e-3),
    "x3d": Recipe(image_samples=0, zoom_clips=42_000, ramp_clips=16_000, mixed=False, batch_size=32, learning_rate=3e-3),
}


@dataclass(frozen=True)
class Stage:
    """What a model sees at one moment of its curriculum: `patches` is the side of the window, `tubelets` its length."""

    difficulty: float
    patches: int
    tubelets: int

    @property
    def side(self) -> int:
        return self.patches * SPEC.tubelet[1]


def stage_at(recipe: Recipe, seen: int, step: int) -> Stage:
    """Single tubelets first, then clips in windows around the actor, then whole crops; each from easy to hard.

    A ViT goes on seeing windows at every other step until the final decay: they cost it a third of a whole crop.
    """
    if seen < recipe.image_samples:
        return Stage(min(seen / (0.6 * recipe.image_samples), 1.0), 3, 1)
    seen -= recipe.image_samples
    if seen < recipe.zoom_clips:
        return Stage(seen / recipe.zoom_clips, 4, SPEC.grid.t)
    seen -= recipe.zoom_clips
    patches = 4 if recipe.mixed and step % 2 else SPEC.grid.h
    return Stage(min(0.4 + 0.6 * seen / recipe.ramp_clips, 1.0), patches, SPEC.grid.t)


class X3DOnClip(nn.Module):
    """X3D-tiny behind its resample, so that both models take the same clip [B, 3, 8, 112, 112]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = build_x3d_tiny(num_classes).to(memory_format=torch.channels_last_3d)

    def features(self, clip: Tensor) -> Tensor:
        side = clip.shape[-1] * X3D_TINY_SIDE // SPEC.image_size
        x = F.interpolate(clip, (X3D_TINY_FRAMES, side, side), mode="trilinear", align_corners=True)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        for block in self.net.blocks[:5]:
            x = block(x)
        pool = self.net.blocks[5].pool
        return pool.pre_act(pool.pre_norm(pool.pre_conv(x)))  # [B, C, t, h, w]

    def forward(self, clip: Tensor) -> Tensor:
        head = self.net.blocks[5]
        x = self.features(clip).mean((2, 3, 4), keepdim=True)
        x = head.pool.post_act(head.pool.post_conv(x)).flatten(1)
        return head.proj(x)


def build_model(name: str) -> nn.Module:
    """The model with one logit per digit and one per motion; see `fold_head` for how they become class logits."""
    return VideoMAE(SPEC, NUM_FACTORS) if name == "videomae" else X3DOnClip(NUM_FACTORS)


def factor_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the joint class whose logit is digit logit + motion logit: the two cross entropies add up."""
    digit, motion = labels // len(MOTIONS), labels % len(MOTIONS)
    return F.cross_entropy(logits[:, : len(DIGITS)], digit) + F.cross_entropy(logits[:, len(DIGITS) :], motion)


def training_clip(seed: int, index: int, stage: Stage) -> tuple[np.ndarray, int, Tensor]:
    """Clip `index` of the endless training stream: uint8 [T, side, side, 3] at a random start and place, and its label."""
    scene = make_scene("train", seed, index, difficulty=stage.difficulty)
    rng = np.random.default_rng([seed, len(SPLITS), index])
    span = SPEC.num_frames * FRAME_STRIDE
    start = int(rng.integers(0, NUM_FRAMES - span + 1))
    top, left = 0, int(rng.integers(0, WIDTH - HEIGHT + 1))
    if stage.side < HEIGHT:
        camera_x, camera_y = scene.camera(start + span / 2)
        anchor_x, anchor_y = scene.sprites[-1].anchor
        left = int(anchor_x + camera_x + rng.uniform(-8, 8)) - stage.side // 2
        top = int(anchor_y + camera_y + rng.uniform(-8, 8)) - stage.side // 2
    frames, mask = render(scene, range(start, start + span, FRAME_STRIDE), top, left, stage.side, stage.side)
    if rng.random() < 0.3:  # block and ringing noise like a video codec's
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 90))]
        frames = np.stack([cv2.imdecode(cv2.imencode(".jpg", f, quality)[1], cv2.IMREAD_COLOR) for f in frames])
    return frames, scene.label, opacity_per_token(mask)


def opacity_per_token(mask: np.ndarray) -> Tensor:
    """Mean opacity of the actor in each token, float32 [t * h * w] in 0-255, of masks uint8 [T, H, W]."""
    return F.avg_pool3d(torch.from_numpy(mask).float()[None], SPEC.tubelet).flatten()


def vit_tokens(model: VideoMAE, clip: Tensor, stage: Stage, rng: np.random.Generator) -> Tensor:
    """Last tokens [B, n, D] of a batch [B, 3, T, side, side]; windows get the codes of a random place of the grid."""
    grid = SPEC.grid
    row, column = rng.integers(0, grid.h - stage.patches + 1, 2)
    time = rng.integers(0, grid.t - stage.tubelets + 1)
    index = torch.arange(grid.num_tokens, device=clip.device).view(grid.shape)
    index = index[time : time + stage.tubelets, row : row + stage.patches, column : column + stage.patches].flatten()
    x = model.patch_embed.proj(clip).flatten(2).transpose(1, 2) + model.pos_embed[:, index]  # [B, t * p * p, D]
    return model.norm(model.blocks(x))


class TokenLabels(nn.Module):
    """Token labelling (Jiang et al., NeurIPS 2021): each token of the host says which actor it shows, if any.

    A training aid of the host alone: these two linear layers are thrown away afterwards, and the proposal has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(SPEC.width)
        self.digit = nn.Linear(SPEC.width, len(DIGITS) + 1)  # the last class is "no actor here"
        self.motion = nn.Linear(SPEC.width, len(MOTIONS) + 1)

    def loss(self, tokens: Tensor, labels: Tensor, opacity: Tensor) -> Tensor:
        """Cross entropy over tokens [B, n, D], where `opacity` [B, n] is the actor's; empty tokens weigh a tenth."""
        shown = opacity > 255 * 0.03
        weight = torch.where(shown, 1.0, 0.1)
        tokens = self.norm(tokens)
        total = tokens.new_zeros(())
        for layer, value in ((self.digit, labels // len(MOTIONS)), (self.motion, labels % len(MOTIONS))):
            target = torch.where(shown, value[:, None], layer.out_features - 1)
            losses = F.cross_entropy(layer(tokens).transpose(1, 2), target, reduction="none")
            total = total + (losses * weight).sum() / weight.sum()
        return total


def stage_loss(logits: Tensor, labels: Tensor, stage: Stage) -> Tensor:
    """Cross entropy over both factors; over digits alone where a single tubelet cannot show the motion."""
    if stage.tubelets > 1:
        return factor_loss(logits, labels)
    return F.cross_entropy(logits[:, : len(DIGITS)], labels // len(MOTIONS))


def to_clip(frames: np.ndarray, device: torch.device) -> Tensor:
    """uint8 [B, T, H, W, 3] -> normalised float32 [B, 3, T, H, W]."""
    return normalise(torch.from_numpy(frames).to(device).permute(0, 4, 1, 2, 3).float())


def normalise(clip: Tensor) -> Tensor:
    return (clip / 255 - MEAN.to(clip.device)) / STD.to(clip.device)


def training_batch(
    seed: int, first: int, size: int, stage: Stage, device: torch.device
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Normalised samples `first` to `first + size` of the stream, [B, 3, T, side, side], labels [B], opacities [B, n]."""
    if stage.tubelets == 1:
        generator = torch.Generator().manual_seed(seed * 10**9 + first)
        frames, digits = digit_images(size, stage.side, stage.difficulty, generator)
        return normalise(frames.to(device)), (digits * len(MOTIONS)).to(device), None
    clips, labels, masks = zip(*(training_clip(seed, first + i, stage) for i in range(size)), strict=True)
    return to_clip(np.stack(clips), device), torch.tensor(labels, device=device), torch.stack(masks).to(device)


def validation_set(num_clips: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders from the validation digits: frames uint8, labels, and actor opacity per token float32 [B, N]."""
    frames, labels, masks = [], [], []
    for index in range(num_clips):
        scene = make_scene("val", seed, index)
        start, left = (index * 7) % 33, (index * 11) % (WIDTH - HEIGHT + 1)
        clip, mask = render(scene, range(start, start + 32, FRAME_STRIDE), 0, left, HEIGHT, HEIGHT)
        frames.append(clip)
        labels.append(scene.label)
        masks.append(opacity_per_token(mask).numpy())
    return np.stack(frames), np.array(labels), np.stack(masks)


@torch.inference_mode()
def evaluate(
    model: nn.Module, data: tuple[np.ndarray, np.ndarray, np.ndarray], device: torch.device
) -> dict[str, float]:
    """Single-view accuracies on validation renders; for a proposal also the share of the actor in its top 30 % tokens."""
    model.eval()
    frames, labels, masks = data
    totals = dict.fromkeys(("loss", "digit", "motion", "joint", "cover30"), 0.0)
    for first in range(0, len(labels), 40):
        clip = to_clip(frames[first : first + 40], device)
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
    while seen < total_clips:
        stage = stage_at(recipe, seen, step)
        clip, labels, opacity = training_batch(seed, seen, recipe.batch_size, stage, device)
        model.train()
        if isinstance(model, VideoMAE):
            tokens = vit_tokens(model, clip, stage, np.random.default_rng([seed, step]))
            loss = stage_loss(model.forward_head(tokens), labels, stage)
            if opacity is not None:
                loss = loss + token_labels.loss(tokens, labels, opacity)
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
