"""How time grows: of a ViT with tokens and batch, of decoding with its workers, of an evaluation with its ranks.

    python tools/measure_scaling.py CLIP... --model videomae_small --out results/scaling.csv

Every row has what was varied, its value, the time per unit of work, and the ratio to the first row of its kind.
`exponent` is the slope between a row and the one before it on logarithmic axes: 1 is growth in proportion, 2 in the
square, -1 is twice as fast with twice as many.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from vidprune.cli.bench import build_models
from vidprune.config import ModelConfig, RunConfig
from vidprune.demo import load_clips
from vidprune.evaluation.decoding import decode_all
from vidprune.profiling.measured_csv import write_measured
from vidprune.profiling.timing import machine, time_in_turn
from vidprune.pruning import PrunedViT, host_of, input_shape
from vidprune.video import ViewPlan, read_video

KEEP_RATIOS = (0.1, 0.2, 0.3, 0.45, 0.7, 1.0)
BATCHES = (1, 2, 4, 8)


@dataclass(frozen=True)
class Scale:
    """One measured point: `seconds` of one `unit`, beside the first point of the same kind."""

    varied: str
    value: int
    unit: str
    seconds: float
    ratio_to_first: float
    exponent: float | None


def scale_rows(varied: str, unit: str, points: Sequence[tuple[int, float]]) -> list[Scale]:
    """Rows from (value, seconds) pairs in ascending order of value."""
    rows: list[Scale] = []
    for i, (value, seconds) in enumerate(points):
        exponent = None
        if i:
            before_value, before = points[i - 1]
            exponent = math.log(seconds / before) / math.log(value / before_value)
        rows.append(Scale(varied, value, unit, seconds, seconds / points[0][1], exponent))
    return rows


def by_tokens(run: RunConfig, rounds: int) -> list[Scale]:
    models = {
        name: model
        for name, model in build_models(run, [f"random keep_ratio={ratio}" for ratio in KEEP_RATIOS]).items()
        if isinstance(model, PrunedViT)  # the dense one is z = 1 again
    }
    first = next(iter(models.values()))
    like = next(first.parameters())
    pixels = torch.randn(input_shape(host_of(first)), device=like.device, dtype=like.dtype)
    with torch.inference_mode():
        ways = {name: partial(model, pixels) for name, model in models.items()}
        seconds = time_in_turn(ways, rounds=rounds, device=str(like.device))
    points = [(model.num_kept(), statistics.median(seconds[name])) for name, model in models.items()]
    return scale_rows("tokens", "view", points)


def by_batch(run: RunConfig, rounds: int) -> list[Scale]:
    model = build_models(run, [])["dense"]
    like = next(model.parameters())
    shape = input_shape(host_of(model))[1:]  # of one view
    clips = {size: torch.randn(size, *shape, device=like.device, dtype=like.dtype) for size in BATCHES}
    with torch.inference_mode():
        ways = {str(size): partial(model, clip) for size, clip in clips.items()}
        seconds = time_in_turn(ways, rounds=rounds, device=str(like.device))
    return scale_rows("batch", "pass", [(size, statistics.median(seconds[str(size)])) for size in BATCHES])


def by_workers(files: Sequence[Path], num_videos: int) -> list[Scale]:
    points = []
    jobs = [(i, str(files[i % len(files)])) for i in range(num_videos)]
    for workers in sorted({1, 2, len(os.sched_getaffinity(0))}):
        start = 0.0
        for number, _ in enumerate(
            decode_all(partial(read_video, plan=ViewPlan()), jobs, workers=workers, timeout_s=120)
        ):
            if number == 0:
                start = time.perf_counter()  # workers have started by now
        points.append((workers, (time.perf_counter() - start) / (num_videos - 1)))
    return scale_rows("decode workers", "video", points)


def by_ranks(num_videos: int) -> list[Scale]:
    """Whole runs of the demo set, start-up included, by 1 and 2 processes with one thread and one worker each."""
    points = []
    for ranks in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={ranks}", "-m", "vidprune"]
            manifest = Path(folder) / "videos.txt"
            manifest.write_text("".join(f"{clip.path} {clip.label}\n" for clip in load_clips()[:num_videos]))
            command += ["evaluate", str(manifest), "--model", "demo", "--method", "papr", "--keep-ratio", "0.5"]
            command += ["--workers", "1", "--out", str(Path(folder) / "run")]
            start = time.perf_counter()
            subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True)
            points.append((ranks, time.perf_counter() - start))
    return scale_rows("ranks", f"evaluation of {num_videos} demo clips", points)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", default="videomae_small")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--num-videos", type=int, default=24)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    run = RunConfig(model=ModelConfig(args.model), device=args.device, dtype=args.dtype)
    rows = by_tokens(run, args.rounds) + by_batch(run, args.rounds)
    rows += by_workers(args.clips, args.num_videos) + by_ranks(args.num_videos)
    command = ["python", "tools/measure_scaling.py", *sys.argv[1:]]
    write_measured(args.out, rows, command=command, machine=machine(str(args.device).replace("auto", "cpu")))
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
