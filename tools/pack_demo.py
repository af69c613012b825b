"""Packs the demo: trained weights as safetensors, and the held-out clips that ship inside the package.

python tools/pack_demo.py weights --videomae runs/videomae --x3d runs/x3d --out vidprune/data/demo
python tools/pack_demo.py clips --out vidprune/data/demo
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import torch
from demo_stream import FRAME_STRIDE, MEAN, SPEC, STD
from digit_scenes import CLASS_NAMES, DIGITS, NUM_CLASSES
from render_digits import CRF, write_set
from safetensors.torch import save_file
from torch import Tensor

from vidprune.models.videomae import VideoMAE
from vidprune.proposals.x3d_tiny import X3D_TINY_FRAMES, X3D_TINY_SIDE, build_x3d_tiny

CLIPS_PER_CLASS = 4
HEADS = {"videomae": "head", "x3d": "blocks.5.proj"}


def fold_head(weights: dict[str, Tensor], head: str) -> dict[str, Tensor]:
    """Turns a head of digit and motion logits into one of class logits, each the sum of its digit's and its motion's.

    The softmax of such sums is the product of the two softmaxes, which is what training maximised.
    """
    folded = dict(weights)
    for part in ("weight", "bias"):
        factors = weights[f"{head}.{part}"]
        digits, motions = factors[: len(DIGITS)], factors[len(DIGITS) :]
        folded[f"{head}.{part}"] = (digits[:, None] + motions[None, :]).flatten(0, 1).contiguous()  # digit-major
    return folded


def class_weights(name: str, run: Path) -> tuple[dict[str, Tensor], int]:
    """The averaged weights of a training run with class logits, checked against the architecture; and samples seen."""
    state = torch.load(run / "checkpoint.pt", weights_only=True, map_location="cpu")
    weights = {key.removeprefix("net."): value.contiguous() for key, value in state["ema"].items()}
    weights = fold_head(weights, HEADS[name])
    model = VideoMAE(SPEC, NUM_CLASSES) if name == "videomae" else build_x3d_tiny(NUM_CLASSES)
    model.load_state_dict(weights)
    return weights, state["seen"]


def metadata(name: str, seen: int, seed: int) -> dict[str, str]:
    """What a reader of the file needs to know to use it, as safetensors' string-to-string header."""
    view_plan = {"num_frames": SPEC.num_frames, "frame_stride": FRAME_STRIDE, "num_segments": 5, "num_crops": 3}
    view_plan |= {"short_side": SPEC.image_size, "crop_size": SPEC.image_size}
    fields: dict[str, object] = {
        "architecture": f"{name}_tiny",
        "classes": CLASS_NAMES,
        "mean": [round(v, 3) for v in MEAN.flatten().tolist()],
        "std": [round(v, 3) for v in STD.flatten().tolist()],
        "view_plan": view_plan,
        "training": f"tools/train_demo.py {name} --seed {seed}, {seen} samples, exponential average of the weights",
    }
    if name == "x3d":
        fields["input"] = {"num_frames": X3D_TINY_FRAMES, "side": X3D_TINY_SIDE}
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in fields.items()}


def pack_weights(runs: dict[str, Path], out: Path, seed: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, run in runs.items():
        weights, seen = class_weights(name, run)
        save_file(weights, out / f"{name}_tiny.safetensors", metadata(name, seen, seed))


def pack_clips(out: Path, seed: int) -> None:
    clips = out / "clips"
    write_set(clips, "heldout", CLIPS_PER_CLASS * NUM_CLASSES, seed, CRF)
    (clips / "classes.txt").replace(out / "classes.txt")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = parser.add_subparsers(dest="part", required=True)
    for part in ("weights", "clips"):
        sub = parts.add_parser(part)
        sub.add_argument("--out", type=Path, default=Path("vidprune/data/demo"))
        sub.add_argument("--seed", type=int, default=0)
        if part == "weights":
            sub.add_argument("--videomae", type=Path, required=True, help="folder of its training run")
            sub.add_argument("--x3d", type=Path, required=True, help="folder of its training run")
    args = parser.parse_args()
    if args.part == "weights":
        pack_weights({"videomae": args.videomae, "x3d": args.x3d}, args.out, args.seed)
    else:
        cv2.setNumThreads(1)
        pack_clips(args.out, args.seed)


if __name__ == "__main__":
    main()
