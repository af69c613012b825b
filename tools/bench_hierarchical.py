"""Times ConvNeXt and Swin dense, and with their pointwise layers on the kept pixels alone, in turn.

OMP_NUM_THREADS=1 python tools/bench_hierarchical.py --out results/hierarchical.csv

The pruned host is given its proposal map, so `ratio` compares the host with itself; `ratio_with_proposal` adds what
MobileOne-S0 takes. Times are CPU time of this process, which other work on the machine disturbs less than wall time.
`--models` and `--batches` measure some alone and leave the file's other rows.
"""

from __future__ import annotations

import argparse
import csv
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path

import torch

from vidprune.models import create_model
from vidprune.profiling.flops import flops
from vidprune.profiling.timing import Way, median_ratio, time_in_turn
from vidprune.proposals import create_proposal
from vidprune.pruners.papr import PaPr
from vidprune.pruning import prune

MODELS = ("convnext_tiny", "convnext_base", "swin_tiny_patch4_window7_224", "swin_base_patch4_window7_224")
BATCHES = (1, 8)
KEEP_RATIO = 0.65


def measure(name: str, batch: int, rounds: int) -> dict[str, object]:
    """What one host takes per image, and its ratios."""
    host, proposal = create_model(f"timm/{name}"), create_proposal("mobileone_s0")
    pruned = prune(host, PaPr(KEEP_RATIO, proposal=proposal))
    images = torch.randn(batch, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    proposal_map = proposal(images.unsqueeze(2))
    ways: dict[str, Way] = {
        "dense": lambda: host(images),
        "pruned": lambda: pruned(images, proposal_map),
        "proposal": lambda: proposal(images.unsqueeze(2)),
    }
    seconds = time_in_turn(ways, rounds=rounds, clock=time.process_time)
    both = [a + b for a, b in zip(seconds["pruned"], seconds["proposal"], strict=True)]
    report = flops(pruned)
    return {
        "model": name,
        "keep_ratio": KEEP_RATIO,
        "batch": batch,
        **{f"{way}_cpu_ms_per_image": f"{1e3 * statistics.median(s) / batch:.1f}" for way, s in seconds.items()},
        "ratio": f"{median_ratio(seconds['dense'], seconds['pruned']):.2f}",
        "ratio_with_proposal": f"{median_ratio(seconds['dense'], both):.2f}",
        "gflops_ratio": f"{report.dense_gmacs / report.vit_gmacs:.2f}",
        "gflops_ratio_with_proposal": f"{report.reduction:.2f}",
    }


def keep_others(path: Path, rows: list[dict[str, object]]) -> list[dict[str, object]]:
    """The rows of an earlier run that these do not measure again, then these."""
    if not path.exists():
        return rows
    measured = {(row["model"], str(row["batch"])) for row in rows}
    with path.open(newline="", encoding="utf-8") as file:
        earlier: list[dict[str, object]] = [dict(row) for row in csv.DictReader(file)]
    return [row for row in earlier if (row["model"], row["batch"]) not in measured] + rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--batches", nargs="+", type=int, default=BATCHES)
    args = parser.parse_args()
    surroundings = {
        "device": f"CPU {platform.machine()}, {torch.get_num_threads()} threads",
        "versions": f"torch {torch.__version__}, timm {version('timm')}",
    }
    with torch.inference_mode():
        rows = [measure(name, batch, args.rounds) | surroundings for name in args.models for batch in args.batches]
    rows = keep_others(args.out, rows)
    with args.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
