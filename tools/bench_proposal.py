"""Times proposal networks as shipped, per view and shared across crops, against pytorchvideo's own modules, in turn.

python tools/bench_proposal.py --out results/proposal.csv

Least CPU time of the process, which others disturb less than the clock. The maps are compared before anything is
timed; batch norms get random statistics first, so that folding is not trivial.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vidprune.proposals import create_proposal
from vidprune.proposals.base import Proposal, clip_shape
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
)
COLUMNS = ("proposal", "treatment", "views", "shared_crops", "pytorchvideo_cpu_ms_per_view", "cpu_ms_per_view")
COLUMNS += ("ratio", "max_gap", "device", "versions", "command")


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


def randomised(proposal: NetProposal) -> NetProposal:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for module in proposal.features.modules():
            if isinstance(module, nn.BatchNorm3d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.uniform_(-0.3, 0.3, generator=generator)
                module.running_mean.uniform_(-0.3, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
    return proposal


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


def milliseconds(run: Callable[[], Tensor]) -> float:
    start = time.process_time()
    with torch.inference_mode():
        run()
    return 1e3 * (time.process_time() - start)


def measure(name: str, treatment: str, views: int, shared: bool, rounds: int) -> list[object]:
    plan = plan_of(name, views)
    video = noise(plan)
    clips = cut_views(video, plan)
    shipped = create_proposal(name, input_treatment=treatment)
    assert isinstance(shipped, NetProposal)
    plain = as_pytorchvideo(randomised(shipped))
    with torch.no_grad():
        expected = plain(clips)
        gap = ((shipped(clips) - expected).abs().max() / expected.abs().max()).item()
    run = _shared_pass(shipped, video, plan) if shared else lambda: shipped(clips)
    before, after = [], []
    for _ in range(rounds):
        before.append(milliseconds(lambda: plain(clips)))
        after.append(milliseconds(run))
    times = [f"{min(t) / views:.2f}" for t in (before, after)]
    return [
        name,
        treatment,
        views,
        int(shared),
        *times,
        f"{min(before) / min(after):.2f}",
        "" if shared else f"{gap:.0e}",
    ]


def _shared_pass(net: Proposal, video: VideoFrames, plan: ViewPlan) -> Callable[[], Tensor]:
    grid = TokenGrid(plan.num_frames // 2, plan.crop_size // 16, plan.crop_size // 16)
    shared = SharedCrops(net)
    return lambda: shared.view_maps(video, plan, grid=grid, device=torch.device("cpu"), dtype=torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    versions = f"torch {torch.__version__}, pytorchvideo {version('pytorchvideo')}"
    device = f"CPU {platform.machine()}, {torch.get_num_threads()} threads"
    threads = f"OMP_NUM_THREADS={os.environ['OMP_NUM_THREADS']} " if "OMP_NUM_THREADS" in os.environ else ""
    command = f"{threads}python tools/bench_proposal.py --out results/{args.out.name} --rounds {args.rounds}"
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for case in CASES:
            writer.writerow([*measure(*case, args.rounds), device, versions, command])
            file.flush()


if __name__ == "__main__":
    main()
