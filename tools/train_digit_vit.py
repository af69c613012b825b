"""Trains the image ViT and its proposal network on digit canvases drawn without end.

    python tools/train_digit_vit.py vit --out runs/digit_vit
    python tools/train_digit_vit.py net --out runs/digit_net
    python tools/train_digit_vit.py pack --vit runs/digit_vit --net runs/digit_net --out tools/data

Run again with the same --out to go on from the last checkpoint. The proposal learns from class labels alone. The ViT
learns from class and token labels, always dense: it never sees a pruned canvas.
"""

from __future__ import annotations

import argparse
import copy
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from digit_canvases import NUM_CLASSES, PATCH, SIDE, draw_canvases, heldout_set
from digit_vit import GRID, WEIGHTS, DigitNet, build_vit
from safetensors.torch import save_file
from torch import Tensor, nn
from train_demo import append_row, update_ema


@dataclass(frozen=True)
class Phase:
    """`num` samples in windows of `patches` patches, growing harder; mixed: every other step has 5 patches."""

    num: int
    patches: int
    difficulty: tuple[float, float] = (1.0, 1.0)
    mixed: bool = False


@dataclass(frozen=True)
class Recipe:
    phases: tuple[Phase, ...]
    learning_rate: float
    ema_decay: float = 0.998
    batch_size: int = 48
    warmup_steps: int = 200

    @property
    def total(self) -> int:
        return sum(phase.num for phase in self.phases)

    def at(self, seen: int, step: int) -> tuple[int, float]:
        """The patches on a side of this step's windows, and the difficulty, after `seen` samples."""
        for phase in self.phases:
            if seen < phase.num:
                break
            seen -= phase.num
        low, high = phase.difficulty
        patches = 5 if phase.mixed and step % 2 else phase.patches
        return patches, low + (high - low) * min(seen / phase.num, 1.0)

    def learning_rate_at(self, seen: int, step: int) -> float:
        """Linear warm-up, constant, and linear to zero over the last phase."""
        return self.learning_rate * min((step + 1) / self.warmup_steps, 1.0, (self.total - seen) / self.phases[-1].num)


RECIPES = {
    "vit": Recipe(
        (
            Phase(60_000, 5, (0.0, 1.0)),
            Phase(40_000, 5),
            Phase(50_000, 8, mixed=True),
            Phase(50_000, GRID, mixed=True),
            Phase(50_000, GRID),
        ),
        learning_rate=1.5e-3,
    ),
    "net": Recipe((Phase(40_000, 6, (0.0, 1.0)), Phase(20_000, 8), Phase(30_000, GRID)), learning_rate=3e-3),
}


class TokenLabels(nn.Module):
    """Token labelling (Jiang et al., NeurIPS 2021): each patch token says which whole digit it shows, or none.

    A training aid of the ViT alone; this layer is thrown away afterwards.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, NUM_CLASSES + 1)  # the last class is "no whole digit here"

    def loss(self, tokens: Tensor, labels: Tensor, opacity: Tensor) -> Tensor:
        """Cross entropy over patch tokens [B, n, D] with the digit's opacity [B, n]; empty tokens weigh a tenth."""
        shown = opacity > 0.03
        weight = torch.where(shown, 1.0, 0.1)
        target = torch.where(shown, labels[:, None], NUM_CLASSES)
        losses = F.cross_entropy(self.head(tokens).transpose(1, 2), target, reduction="none")
        return (losses * weight).sum() / weight.sum()


def window_tokens(vit: nn.Module, inputs: Tensor, row: int, column: int) -> Tensor:
    """Last tokens [B, 1 + n, D] of windows [B, 3, side, side] that lie at patch (row, column) of the canvas."""
    patches = inputs.shape[-1] // PATCH
    index = torch.arange(GRID * GRID).view(GRID, GRID)[row : row + patches, column : column + patches].flatten()
    position = vit.pos_embed[:, torch.cat((torch.zeros(1, dtype=torch.int64), 1 + index))]
    x = vit.patch_embed.proj(inputs).flatten(2).transpose(1, 2)  # [B, n, D]
    x = torch.cat((vit.cls_token.expand(len(x), -1, -1), x), dim=1) + position
    return vit.norm(vit.blocks(x))


class Training:
    """One network in training with its averaged copy; what `checkpoint` holds is enough to go on."""

    def __init__(self, name: str, seed: int) -> None:
        torch.manual_seed(seed)
        self.recipe = RECIPES[name]
        self.seed = seed
        self.model = build_vit() if name == "vit" else DigitNet()
        self.ema = copy.deepcopy(self.model)
        self.token_labels = TokenLabels(self.model.embed_dim) if name == "vit" else None
        parameters = [*self.model.parameters(), *(self.token_labels.parameters() if self.token_labels else ())]
        decay = [p for p in parameters if p.ndim > 1]
        rest = [p for p in parameters if p.ndim <= 1]
        groups = [{"params": decay, "weight_decay": 0.05}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
        self.seen = self.step = 0

    def train_step(self) -> float:
        """One step on freshly drawn canvases; returns the loss of the class labels."""
        patches, difficulty = self.recipe.at(self.seen, self.step)
        generator = torch.Generator().manual_seed(self.seed * 10**9 + self.seen)
        batch = draw_canvases("train", self.recipe.batch_size, patches * PATCH, difficulty, generator)
        self.model.train()
        if self.token_labels is None:
            loss = total = F.cross_entropy(self.model(batch.inputs), batch.labels)
        else:
            row, column = torch.randint(0, GRID - patches + 1, (2,), generator=generator).tolist()
            tokens = window_tokens(self.model, batch.inputs, row, column)
            loss = total = F.cross_entropy(self.model.forward_head(tokens), batch.labels)
            opacity = F.avg_pool2d(batch.opacity, PATCH).flatten(1)
            total = loss + self.token_labels.loss(tokens[:, 1:], batch.labels, opacity)
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate_at(self.seen, self.step)
        self.optimizer.step()
        update_ema(self.ema, self.model, min(self.recipe.ema_decay, (1 + self.step) / (10 + self.step)))
        self.seen, self.step = self.seen + self.recipe.batch_size, self.step + 1
        return loss.item()

    def checkpoint(self) -> dict[str, object]:
        modules = {"model": self.model, "ema": self.ema, "optimizer": self.optimizer}
        if self.token_labels is not None:
            modules["token_labels"] = self.token_labels
        return {key: part.state_dict() for key, part in modules.items()} | {"seen": self.seen, "step": self.step}

    def restore(self, state: dict[str, object]) -> None:
        self.model.load_state_dict(state["model"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.token_labels is not None:
            self.token_labels.load_state_dict(state["token_labels"])
        self.seen, self.step = state["seen"], state["step"]


@torch.inference_mode()
def accuracies(model: nn.Module, seed: int = 0) -> dict[str, float]:
    """Top-1 on validation digits: whole canvases, and windows around the digit for the ViT; for a net, coverage too."""
    model.eval()
    canvases = heldout_set(300, seed, split="val")
    figures = {"val": float((model(canvases.inputs).argmax(1) == canvases.labels).float().mean())}
    if isinstance(model, DigitNet):
        kept = model.features(canvases.inputs).mean(1).flatten(1).topk(GRID * GRID * 3 // 10).indices
        mass = F.avg_pool2d(canvases.opacity, PATCH).flatten(1)
        return figures | {"cover30": float((mass.gather(1, kept).sum(1) / mass.sum(1)).mean())}
    windows = draw_canvases("val", 300, 5 * PATCH, 1.0, torch.Generator().manual_seed(seed))
    hits = model.forward_head(window_tokens(model, windows.inputs, 3, 3)).argmax(1) == windows.labels
    return figures | {"val_window": float(hits.float().mean())}


def train(name: str, out: Path, seed: int) -> None:
    training, path = Training(name, seed), out / "checkpoint.pt"
    if path.exists():
        training.restore(torch.load(path, weights_only=True))
    out.mkdir(parents=True, exist_ok=True)
    losses, started, saved = [], time.monotonic(), time.monotonic()
    while training.seen < training.recipe.total:
        losses.append(training.train_step())
        if time.monotonic() - saved > 60 or training.seen >= training.recipe.total:
            torch.save(training.checkpoint(), path)
            patches, difficulty = training.recipe.at(training.seen, 0)
            row = {"samples": training.seen, "minutes": (time.monotonic() - started) / 60, "patches": patches}
            row |= {"difficulty": difficulty, "train_loss": sum(losses) / len(losses), **accuracies(training.ema)}
            append_row(out / "log.csv", row)
            losses, saved = [], time.monotonic()


def pack(vit: Path, net: Path, out: Path) -> None:
    """The averaged weights as float16: half the size, and the digits in which the accuracies are given do not move."""
    out.mkdir(parents=True, exist_ok=True)
    for name, run in (("digit_vit", vit), ("digit_net", net)):
        state = torch.load(run / "checkpoint.pt", weights_only=True)
        weights = {k: v.half() if v.dtype.is_floating_point else v for k, v in state["ema"].items()}
        note = {"training": f"tools/train_digit_vit.py, {state['seen']} samples", "canvas": str(SIDE)}
        save_file(weights, out / f"{name}.safetensors", note)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=[*RECIPES, "pack"])
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder of the checkpoint and log, or of the weights")
    parser.add_argument("--vit", type=Path, help="with pack: folder of its training run")
    parser.add_argument("--net", type=Path, help="with pack: folder of its training run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.part == "pack":
        pack(args.vit, args.net, args.out)
    else:
        train(args.part, args.out, args.seed)


if __name__ == "__main__":
    main()
