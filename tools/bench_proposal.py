"""Times proposal networks as shipped, per view and shared across crops, against pytorchvideo's own modules, in turn.

python tools/bench_proposal.py --out results/proposal.csv

Medians of wall time; run it on a quiet machine. The maps are compared before anything is timed; batch norms get random
statistics first, so that folding is not trivial. With --device cuda also with depthwise convolutions in the other
memory order (`_PlainDepthwise` of vidprune/proposals/folding.py).
"""

from __future__ import annotations

import argparse
import copy
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from random_norms import randomise_norms
from torch import Tensor, nn

from vidprune.profiling.measured_csv import write_measured
from vidprune.profiling.timing import machine, median_ratio, time_in_turn
from vidprune.proposals import create_proposal
from vidprune.proposals.base import Proposal, clip_shape
from vidprune.proposals.folding import fold_batch_norms
from vidprune.proposals.nets3d import NetProposal
from vidprune.proposals.shared_crops import SharedCrops
from vidprune.proposals.treatment import resample
from vidprune.types import TokenGrid, VideoFrames
from vidprune.video import ViewPlan, cut_views

CASES = (  # name, input treatment, views, whether one pass per segment serves the crops
    ("x3d_tiny", "release", 15, False),
    ("x3d_tiny", "release", 15, True),
    ("x3d_s", "release", 1, False),
    ("x3d_s", "native", 1, False),
    ("x3d_s", "release", 15, True),
    ("x3d_s", "native", 15, True),
)


@dataclass(frozen=True)
class ProposalSpeed:
    """One network: milliseconds per view of pytorchvideo's modules and of ours, and how far their maps are apart.

    `innermost_ms_per_view` is of ours with depthwise convolutions channels_last_3d: what runs on a CPU anyway.
    """

    proposal: str
    treatment: str
    views: int
    shared_crops: bool
    pytorchvideo_ms_per_view: float
    ms_per_view: float
    ratio: float
    max_gap: float | None
    innermost_ms_per_view: float | None


def plan_of(name: str, views: int) -> ViewPlan:
    frames, side = (8, 112) if name == "x3d_tiny" else (16, 224)
    segments, crops = (5, 3) if views == 15 else (1, 1)
    return ViewPlan(frames, 4, segments, crops, short_side=side, crop_size=side)


def noise(plan: ViewPlan) -> VideoFrames:
    """300 frames of 4:3, those that the plan wants."""
    numbers = plan.wanted_frames(300)
    size = (plan.short_side, plan.short_side * 4 // 3)
    frames = np.random.default_rng(0).integers(0, 256, (len(numbers), *size, 3), dtype=np.uint8)
    return VideoFrames(frames, numbers, 300, 0, 0, np.zeros(len(numbers), bool), 30.0, size, "noise")


def as_pytorchvideo(proposal: NetProposal) -> Callable[[Tensor], Tensor]:
    """The map by pytorchvideo's own modules, in PyTorch's default memory layout."""
    from pytorchvideo.layers.swish import Swish

    net = copy.deepcopy(proposal.features)
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.SiLU):
                setattr(module, name, Swish())

    def run(clip: Tensor) -> Tensor:
        clip = resample(clip, proposal.input_size(clip_shape(clip))).contiguous()
        return net(clip).mean(dim=1, dtype=torch.float32)

    return run


def measure(name: str, treatment: str, views: int, shared: bool, args: argparse.Namespace) -> ProposalSpeed:
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    plan = plan_of(name, views)
    video = noise(plan)
    clips = cut_views(video, plan, device=device, dtype=dtype)
    shipped = create_proposal(name, input_treatment=treatment)
    assert isinstance(shipped, NetProposal)
    randomise_norms(shipped.features)
    shipped = shipped.to(device, dtype)
    plain = as_pytorchvideo(shipped)
    ours = _shared_pass(shipped, video, plan, clips) if shared else lambda: shipped(clips)
    ways = {"plain": lambda: plain(clips), "ours": ours}
    if device.type == "cuda" and not shared:
        ways["innermost"] = _innermost(shipped, clips)
    with torch.inference_mode():  # from here on: a network that is made in inference mode runs unfolded
        expected = plain(clips)
        gap = ((shipped(clips) - expected).abs().max() / expected.abs().max()).item()
        seconds = time_in_turn(ways, rounds=args.rounds, warm_up=3, device=args.device)
    ms = {way: 1e3 * statistics.median(seconds[way]) / views for way in ways}
    ratio = median_ratio(seconds["plain"], seconds["ours"])
    gap_if_alike = None if shared else gap
    return ProposalSpeed(
        name, treatment, views, shared, ms["plain"], ms["ours"], ratio, gap_if_alike, ms.get("innermost")
    )


def _innermost(net: NetProposal, clips: Tensor) -> Callable[[], Tensor]:
    """Our pass with depthwise convolutions channels_last_3d."""
    folded = fold_batch_norms(net.features, depthwise_innermost=True)
    size = net.input_size(clip_shape(clips))
    return lambda: folded(net.prepare(clips, size)).mean(dim=1, dtype=torch.float32)


def _shared_pass(net: Proposal, video: VideoFrames, plan: ViewPlan, like: Tensor) -> Callable[[], Tensor]:
    grid = TokenGrid(plan.num_frames // 2, plan.crop_size // 16, plan.crop_size // 16)
    shared = SharedCrops(net)
    return lambda: shared.view_maps(video, plan, grid=grid, device=like.device, dtype=like.dtype)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"))
    args = parser.parse_args()
    rows = [measure(*case, args) for case in CASES]
    command = ["python", "tools/bench_proposal.py", *sys.argv[1:]]
    write_measured(args.out, rows, command=command, machine=machine(args.device))
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
