"""How long the whole Kinetics-400 validation set would take here, from measurements, with the arithmetic shown.

    python tools/extrapolate_k400.py CLIP... --model videomae_large --method "papr keep_ratio=.3" --workers 16

Measured here: an evaluation of the given clips (repeated), decoding alone and the model alone, see
`vidprune bench pipeline`. The clips should be of Kinetics' kind: 10 s, 340x256 H.264. Weights may be random: they do
not change the time. Nothing here ran all 19,796 videos; the last line is an extrapolation and says so.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from vidprune.cli.bench import build_models
from vidprune.config import ModelConfig, RunConfig, build_views
from vidprune.profiling.measured_csv import write_measured
from vidprune.profiling.pipeline_speed import PipelineSpeed, measure_pipeline
from vidprune.profiling.timing import machine

VIDEOS = 19_796  # in the mmaction copy of the validation set


@dataclass(frozen=True)
class Extrapolation:
    """Minutes for the whole set, from one measured evaluation."""

    name: str
    model: str
    dtype: str
    workers: int
    views: int
    measured_videos: int
    decode_videos_per_s: float
    model_videos_per_s: float
    pipeline_videos_per_s: float
    minutes_if_overlap_were_perfect: float
    minutes: float


def extrapolate(speed: PipelineSpeed, model: str, dtype: str) -> Extrapolation:
    """Minutes at the measured rate of the whole evaluation, and at that of its slowest stage."""
    slowest = min(speed.decode_videos_per_s, speed.model_videos_per_s)
    return Extrapolation(
        name=speed.name,
        model=model,
        dtype=dtype,
        workers=speed.workers,
        views=speed.views,
        measured_videos=speed.num_videos,
        decode_videos_per_s=speed.decode_videos_per_s,
        model_videos_per_s=speed.model_videos_per_s,
        pipeline_videos_per_s=speed.videos_per_s,
        minutes_if_overlap_were_perfect=VIDEOS / slowest / 60,
        minutes=VIDEOS / speed.videos_per_s / 60,
    )


def explain(row: Extrapolation) -> str:
    rate = row.pipeline_videos_per_s
    return "\n".join(
        (
            f"{row.name} ({row.model}, {row.dtype}), {row.views} views per video, {row.workers} decode workers:",
            f"  alone, videos per second: decoding {row.decode_videos_per_s:.2f}, model {row.model_videos_per_s:.2f}",
            f"  evaluation, measured on {row.measured_videos} videos: {rate:.2f} videos per second",
            f"  {VIDEOS:,} videos / {rate:.2f} per second / 60 = {row.minutes:.1f} minutes (extrapolated)",
            f"  with perfect overlap, the slowest stage's rate: {row.minutes_if_overlap_were_perfect:.1f} minutes",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--model", default="videomae_large")
    parser.add_argument("--method", action="append", help="default: 'papr keep_ratio=.3'; repeat for more rows")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="bfloat16", help="float32 where the device has no fast bfloat16")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--num-videos", type=int, default=64)
    parser.add_argument("--views-per-batch", type=int)
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    run = RunConfig(model=ModelConfig(args.model), device=args.device, dtype=args.dtype, compile=args.compile)
    models = build_models(run, args.method or ["papr keep_ratio=.3"])
    plan = build_views(run, models["dense"])
    clips = [args.clips[i % len(args.clips)] for i in range(args.num_videos)]
    rows = []
    for name, model in models.items():
        speed = measure_pipeline(name, model, plan, clips, workers=args.workers, views_per_batch=args.views_per_batch)
        rows.append(extrapolate(speed, args.model, args.dtype))
        print(explain(rows[-1]), flush=True)
    if args.out is not None:
        device = str(next(models["dense"].parameters()).device)
        command = ["python", "tools/extrapolate_k400.py", *sys.argv[1:]]
        write_measured(args.out, rows, command=command, machine=machine(device))


if __name__ == "__main__":
    main()
