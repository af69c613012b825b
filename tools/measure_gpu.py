"""Everything that only a GPU can tell, in one go: its tests, the speed of models and of evaluations, Kinetics' minutes.

    python tools/measure_gpu.py CLIP... --out results

The clips should be of Kinetics' kind: 10 s, 340x256 H.264. Weights may be random: they do not change the time. Each
step is a process of its own, so that one that fails takes no other with it. What was written stays, and a step whose
file is there already is passed over: the same command goes on where a time limit cut it off. `gpu_*.csv` say command,
device and versions; `gpu_goals.md` sets the figures against the goals.
"""

from __future__ import annotations

import argparse
import csv
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VIEWS = "15"  # of one video: what shares a forward pass in an evaluation
BASE, LARGE = "papr keep_ratio=.45", "papr keep_ratio=.3"


@dataclass(frozen=True)
class Step:
    """One command, and the file that it writes; tests write none."""

    command: tuple[str, ...]
    file: str | None = None


@dataclass(frozen=True)
class Goal:
    """A figure that is wanted: the best value of a column over PaPr's rows of the files that hold it."""

    text: str
    files: tuple[str, ...]
    column: str
    wanted: float
    at_least: bool


GOALS = (
    Goal("VideoMAE-B z .45, throughput by that of the ViT alone", ("gpu_base.csv", "gpu_base_compiled.csv"),
         "share_of_bound", 0.97, True),
    Goal("VideoMAE-L z .3, throughput by that of the ViT alone", ("gpu_large.csv", "gpu_large_compiled.csv"),
         "share_of_bound", 0.97, True),
    Goal("an evaluation by its slowest stage", ("gpu_pipeline.csv",), "share_of_slowest", 0.9, True),
    Goal("Kinetics-400 validation, VideoMAE-L z .3, minutes (extrapolated)", ("gpu_k400.csv", "gpu_k400_compiled.csv"),
         "minutes", 6.0, False),
)  # fmt: skip


def steps(args: argparse.Namespace) -> list[Step]:
    """The most wanted first, should time run out."""
    on = ["--device", args.device, "--dtype", args.dtype]
    clips = [str(clip) for clip in args.clips]
    run = ["--num-videos", str(args.num_videos), "--workers", str(args.workers)]
    tests = (sys.executable, "-m", "pytest", "-n", "0", "-m", "gpu", "tests/unit")
    found = [] if args.device == "cpu" else [Step(tests)]
    for suffix, compiled in (("", []), ("_compiled", ["--compile"])):
        k400 = ["--model", args.large, "--method", LARGE, "--method", f"{LARGE} shared_crops=true"]
        found.append(
            _step("tools/extrapolate_k400.py", *clips, *k400, *on, *run, *compiled, out=f"gpu_k400{suffix}.csv")
        )
        for name, model, method in (("base", args.base, BASE), ("large", args.large, LARGE)):
            ways = [method, f"{method} input_treatment=native", f"{method} shared_crops=true"]
            ways.append(method.replace("papr", "random"))
            methods = [part for way in ways for part in ("--method", way)]
            noise = ["--model", model, *methods, "--batch", VIEWS, "--video", clips[0], *on, *compiled]
            found.append(_step("-m", "vidprune", "bench", "model", *noise, csv=f"gpu_{name}{suffix}.csv"))
    pipeline = ["--model", args.base, "--method", BASE, *on, *run]
    found.append(_step("-m", "vidprune", "bench", "pipeline", *clips, *pipeline, csv="gpu_pipeline.csv"))
    found.append(_step("tools/bench_proposal.py", *on, out="gpu_proposal.csv"))
    found.append(_step("tools/bench_proposal.py", "--device", args.device, out="gpu_proposal_float32.csv"))
    return found


def _step(*command: str, **written: str) -> Step:
    ((flag, file),) = written.items()
    return Step((sys.executable, *command, f"--{flag}", file), file)


def run(step: Step, out: Path) -> None:
    """Run a step in the checkout unless its file is there; say how it ended."""
    if step.file is not None and (out / step.file).exists():
        print(f"-- there already: {step.file}", flush=True)
        return
    command = [str(out / part) if part == step.file else part for part in step.command]
    print(f"-- {shlex.join(command[1:])}", flush=True)
    start = time.perf_counter()
    environment = {**os.environ, "VIDPRUNE_REQUIRE_GPU": "1", "PYTHONPATH": str(ROOT)}
    code = subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode
    print(f"-- {'done' if code == 0 else f'failed ({code})'} after {time.perf_counter() - start:.0f} s", flush=True)


def figure(goal: Goal, out: Path) -> tuple[float, str, str] | None:
    """The best value, the name of its row and its file; None where nothing was measured."""
    found = []
    for file in goal.files:
        if (out / file).exists():
            lines = [line for line in (out / file).read_text().splitlines() if not line.startswith("#")]
            rows = [row for row in csv.DictReader(lines) if row["name"].startswith("papr") and row[goal.column]]
            found += [(float(row[goal.column]), row["name"], file) for row in rows]
    return (max(found) if goal.at_least else min(found)) if found else None


def table(goals: Sequence[Goal], out: Path) -> str:
    """The goals with their figures, as Markdown."""
    lines = ["| goal | wanted | figure | of | file | |", "|---|---|---|---|---|---|"]
    for goal in goals:
        wanted = f"{'at least' if goal.at_least else 'at most'} {goal.wanted:g}"
        best = figure(goal, out)
        if best is None:
            lines.append(f"| {goal.text} | {wanted} | not measured | | {', '.join(goal.files)} | open |")
            continue
        value, name, file = best
        met = value >= goal.wanted if goal.at_least else value <= goal.wanted
        lines.append(f"| {goal.text} | {wanted} | {value:.3g} | {name} | {file} | {'met' if met else 'short'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=lambda name: Path(name).resolve())
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--num-videos", type=int, default=64, help="of an evaluation; the clips are repeated up to it")
    parser.add_argument("--base", default="videomae_base", help="another model for a trial run")
    parser.add_argument("--large", default="videomae_large", help="another model for a trial run")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    for step in steps(args):
        run(step, out)
        (out / "gpu_goals.md").write_text(table(GOALS, out))
    print(table(GOALS, out))


if __name__ == "__main__":
    main()
