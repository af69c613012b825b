"""Measures the CPU time of reading the frames of a view plan, against decoding alone; writes a CSV.

Ways, each in the same process and one after another in turn (the order is reversed every other round):
    decode_only       every frame decoded by one thread, none converted: the floor
    pyav              vidprune's default backend: decodes what is needed, converts and resizes what is wanted
    pyav_decode_all   the same without skipping: every frame decoded
    plain             every frame decoded and converted, the wanted ones resized: the usual short script
    decord            vidprune's decord backend

CPU time (of all threads) rather than wall time, so that other work on the machine disturbs little. A ratio is the
median over rounds of (way / decode_only) in that round.

    python tools/bench_decode.py CLIP... --rounds 7 --out results/decode.csv
"""

from __future__ import annotations

import argparse
import csv
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import decord

from vidprune.errors import VidpruneError
from vidprune.video import DecodeStats, ViewPlan, read_frames, read_video
from vidprune.video.backends import pyav

PLAN = ViewPlan()
frame_counts: dict[Path, int] = {}


def decode_only(path: Path) -> int:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def plain(path: Path) -> int:
    wanted, count = set(PLAN.wanted_frames(frame_counts[path]).tolist()), 0
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="rgb24")
            if count in wanted:
                height, width = PLAN.resized_size(*image.shape[:2])
                cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            count += 1
    return count


def pyav_selective(path: Path) -> int:
    stats = DecodeStats()
    read_frames(path, PLAN.wanted_frames, short_side=PLAN.short_side, stats=stats)
    return stats.decoded


def pyav_decode_all(path: Path) -> int:
    skippable, pyav.SKIPPABLE_CODECS = pyav.SKIPPABLE_CODECS, frozenset()
    try:
        return pyav_selective(path)
    finally:
        pyav.SKIPPABLE_CODECS = skippable


def with_decord(path: Path) -> int:
    return read_video(path, PLAN, backend="decord").num_frames_total


WAYS: dict[str, Callable[[Path], int]] = {
    "decode_only": decode_only,
    "pyav": pyav_selective,
    "pyav_decode_all": pyav_decode_all,
    "plain": plain,
    "decord": with_decord,
}


def measure(path: Path, rounds: int) -> list[dict[str, object]]:
    """One row per way for a clip: median CPU milliseconds, median ratio to the floor, frames decoded."""
    frame_counts[path] = decode_only(path)
    decoded = {name: way(path) for name, way in WAYS.items()}  # also warms the page cache
    times: dict[str, list[float]] = {name: [] for name in WAYS}
    for round_number in range(rounds):
        for name in list(WAYS)[:: -1 if round_number % 2 else 1]:
            start = time.process_time()
            WAYS[name](path)
            times[name].append((time.process_time() - start) * 1e3)
    height, width = read_frames(path, [0]).source_size
    return [
        {
            "clip": path.name,
            "size": f"{width}x{height}",
            "frames": frame_counts[path],
            "wanted": len(PLAN.wanted_frames(frame_counts[path])),
            "way": name,
            "decoded": "" if name == "decord" else decoded[name],
            "cpu_ms_per_video": f"{statistics.median(spent):.1f}",
            "ratio_to_decode_only": f"{median_ratio(spent, times['decode_only']):.2f}",
        }
        for name, spent in times.items()
    ]


def median_ratio(spent: list[float], floor: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(spent, floor, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU time of reading the frames of a view plan.")
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows = []
    for path in arguments.clips:
        try:
            rows += measure(path, arguments.rounds)
        except (VidpruneError, av.error.FFmpegError) as error:
            print(f"left out: {error}", file=sys.stderr)
    with arguments.out.open("w", newline="") as file:
        names = [clip.name for clip in arguments.clips]
        file.write(f"# tools/bench_decode.py {shlex.join(names)} --rounds {arguments.rounds}\n")
        file.write(f"# plan: {PLAN}\n")
        file.write(
            f"# {platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, av {av.__version__}, "
            f"opencv {cv2.__version__}, decord {decord.__version__}\n"
        )
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
