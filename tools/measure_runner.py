"""Measures an evaluation's peak memory at several numbers of videos, and how long its model waits for the next video.

python tools/measure_runner.py --out results/runner.csv

The demo's clips are listed again and again under names of their own, and evaluated by the dense demo model, which takes
several times as long as one worker decodes: decoding is not the bottleneck. Each size runs in a process of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from vidprune.config import EvaluateConfig, RunConfig, demo_file, parse_config
from vidprune.evaluation.store import Row
from vidprune.profiling.measured_csv import write_measured
from vidprune.profiling.timing import machine
from vidprune.runs import evaluate


@dataclass(frozen=True)
class RunnerFigures:
    """One evaluation.

    The first video is left out of what follows but the memory: it pays for the set-up of the model.

    Attributes:
        peak_mib: the most that the process that runs the model held; `peak_worker_mib` the largest decode worker.
        decode_ms, model_ms: per video, the means.
        videos_per_s: from the first row to the last, start-up apart.
        idle_percent: of the time from the first row to the last, what the model did not run: waiting for a video,
            and keeping the books (rows, parts of the store).
    """

    num_videos: int
    num_views: int
    workers: int
    peak_mib: float
    peak_worker_mib: float
    decode_ms: float
    model_ms: float
    videos_per_s: float
    idle_percent: float


def list_videos(folder: Path, num_videos: int) -> Path:
    """A manifest of `num_videos` links to the demo's clips, each with a name of its own."""
    clips = sorted(demo_file("clips").glob("*.mp4"))
    lines = []
    for number in range(num_videos):
        link = folder / f"{number:05d}.mp4"
        link.symlink_to(clips[number % len(clips)])
        lines.append(f"{link} {number % 24}\n")
    manifest = folder / "list.txt"
    manifest.write_text("".join(lines))
    return manifest


def measure(num_videos: int, num_segments: int, workers: int) -> RunnerFigures:
    """Evaluate in this process, and say what it took."""
    run: RunConfig = parse_config({"model": {"name": "demo"}, "views": {"num_segments": num_segments}, "device": "cpu"})
    seen: list[
        tuple[float, float, float]
    ] = []  # when, model_s, decode_s; rows themselves would be memory of this tool's
    worker_mib = 0.0

    def on_row(row: Row) -> None:
        nonlocal worker_mib
        worker_mib = max(worker_mib, largest_child_mib())
        seen.append((time.perf_counter(), row.model_s or 0.0, row.decode_s or 0.0))

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = EvaluateConfig(str(list_videos(folder, num_videos)), str(folder / "run"), run=run, workers=workers)
        report = evaluate(config, on_row=on_row)
    if report.num_decoded != num_videos:
        raise SystemExit("some of the clips could not be decoded")
    seconds = seen[-1][0] - seen[0][0]
    model_s, decode_s = sum(row[1] for row in seen[1:]), sum(row[2] for row in seen[1:])
    return RunnerFigures(
        num_videos=num_videos,
        num_views=3 * num_segments,
        workers=workers,
        peak_mib=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        peak_worker_mib=worker_mib,
        decode_ms=1e3 * decode_s / (num_videos - 1),
        model_ms=1e3 * model_s / (num_videos - 1),
        videos_per_s=(num_videos - 1) / seconds,
        idle_percent=100 * (1 - model_s / seconds),
    )


def largest_child_mib() -> float:
    """The most that a living child of this process has held.

    What the system says of ended children would not do: it has what a child shared with this process before its own
    program began.
    """
    peaks = [0.0]
    for children in Path("/proc/self/task").glob("*/children"):
        for child in children.read_text().split():
            with contextlib.suppress(OSError, StopIteration):  # it may have ended meanwhile
                lines = Path(f"/proc/{child}/status").read_text().splitlines()
                peaks.append(int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024)
    return max(peaks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-videos", type=int, nargs="+", default=[40, 200, 400])
    parser.add_argument("--num-segments", type=int, default=5, help="of 3 crops each")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # the process that measures one size
    arguments = parser.parse_args()
    if arguments.one is not None:
        print(json.dumps(vars(measure(arguments.one, arguments.num_segments, arguments.workers))))
        return
    rows = []
    for num_videos in arguments.num_videos:
        options = ["--one", num_videos, "--num-segments", arguments.num_segments, "--workers", arguments.workers]
        command = [sys.executable, __file__, "--out", arguments.out, *options]
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, text=True, check=True)
        rows.append(RunnerFigures(**json.loads(done.stdout.splitlines()[-1])))
        print(rows[-1])
    write_measured(arguments.out, rows, command=["python", *sys.argv], machine=machine("cpu"))


if __name__ == "__main__":
    main()
