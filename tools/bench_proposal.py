"""Times proposal networks with the channels innermost in memory (as shipped) against PyTorch's default layout, in turn.

python tools/bench_proposal.py --out results/proposal.csv
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from vidprune.proposals import create_proposal
from vidprune.proposals.base import clip_shape
from vidprune.proposals.nets3d import NetProposal
from vidprune.proposals.treatment import resample

CASES = (("x3d_tiny", "release", (15, 3, 8, 112, 112)), ("x3d_s", "release", (1, 3, 16, 224, 224)))
CASES += (("x3d_s", "native", (1, 3, 16, 224, 224)),)


def milliseconds(run: Callable[[], Tensor]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def plain_map(proposal: NetProposal, clip: Tensor) -> Tensor:
    """The proposal's map with everything in PyTorch's default memory layout."""
    clip = resample(clip, proposal.input_size(clip_shape(clip))).contiguous()
    return proposal.features(clip).mean(dim=1, dtype=torch.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    surroundings = [f"CPU {platform.machine()}, {torch.get_num_threads()} threads", f"torch {torch.__version__}"]
    with args.out.open("w", newline="") as file, torch.inference_mode():
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(
            [
                "proposal",
                "treatment",
                "batch",
                "plain_ms_per_view",
                "ms_per_view",
                "ratio",
                "max_gap",
                "device",
                "versions",
            ]
        )
        for name, treatment, shape in CASES:
            shipped, plain = (create_proposal(name, input_treatment=treatment) for _ in range(2))
            clip = torch.randn(shape)
            gap = (shipped(clip) - plain_map(plain, clip)).abs().max().item()
            before, after = [], []
            for _ in range(args.rounds):
                before.append(milliseconds(lambda p=plain, c=clip: plain_map(p, c)))
                after.append(milliseconds(lambda p=shipped, c=clip: p(c)))
            ratio = statistics.median(b / a for b, a in zip(before, after, strict=True))
            times = [f"{statistics.median(t) / shape[0]:.2f}" for t in (before, after)]
            writer.writerow([name, treatment, shape[0], *times, f"{ratio:.2f}", f"{gap:.0e}", *surroundings])


if __name__ == "__main__":
    main()
