"""What reading the codec's motion vectors costs on top of reading the frames: least CPU times, in turn, on real files.

python tools/bench_motion.py VIDEOS... --out results/motion.csv

Per file: the frames of 5 x 3 views at a short side of 224, without and with the vectors, and the maps made of them.
"""

from __future__ import annotations

import argparse
import csv
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import av
import numpy as np
import torch

from vidprune.proposals import create_proposal
from vidprune.types import TokenGrid
from vidprune.video import ViewPlan, read_frames

PLAN = ViewPlan()
GRID = TokenGrid(8, 14, 14)
COLUMNS = ("file", "codec", "frames", "key_frames_wanted", "read_cpu_ms", "read_with_vectors_cpu_ms", "maps_cpu_ms")
COLUMNS += ("ratio", "ratio_with_maps", "device", "versions", "command")


def cpu_ms(run: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = run()
    return 1e3 * (time.process_time() - start), result


def measure(path: Path, rounds: int) -> list[object]:
    proposal = create_proposal("codec_motion")

    def read(motion: bool):
        return read_frames(path, PLAN.wanted_frames, short_side=PLAN.short_side, motion=motion)

    def maps(video):
        like = {"device": torch.device("cpu"), "dtype": torch.float32}
        return proposal.view_maps(video, PLAN, grid=GRID, **like)  # type: ignore[attr-defined]

    plain, with_vectors = read(False), read(True)
    assert np.array_equal(plain.frames, with_vectors.frames), "the frames must not depend on the vectors"
    times: list[tuple[float, float, float]] = []
    for round_ in range(rounds):
        first = bool(round_ % 2)
        one, other = (cpu_ms(lambda m=motion: read(m)) for motion in (first, not first))
        (plain_ms, _), (motion_ms, video) = (other, one) if first else (one, other)
        times.append((plain_ms, motion_ms, cpu_ms(lambda v=video: maps(v))[0]))
    least = np.array(times).min(axis=0)  # what other processes add to the CPU time of this one is never negative
    ratio, whole = least[1] / least[0], (least[1] + least[2]) / least[0]
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context.name
    gaps = int(np.isnan(with_vectors.motion).all(axis=(1, 2, 3)).sum())
    facts = [path.name, codec, plain.num_frames_total, f"{gaps} of {len(plain.frames)}"]
    return [*facts, *(f"{ms:.1f}" for ms in least), f"{ratio:.3f}", f"{whole:.3f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    surroundings = [f"CPU {platform.machine()}, 1 thread", f"PyAV {version('av')}, numpy {np.__version__}"]
    names = " ".join(f"data/{path.name}" for path in args.videos)
    surroundings.append(f"python tools/bench_motion.py {names} --out results/{args.out.name} --rounds {args.rounds}")
    with args.out.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for path in args.videos:
            writer.writerow([*measure(path, args.rounds), *surroundings])
            file.flush()


if __name__ == "__main__":
    main()
