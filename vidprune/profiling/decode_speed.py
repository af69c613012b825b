"""What reading the frames of a view plan costs, against decoding every frame of the file and converting none.

The floor is FFmpeg's own decoder, in this process, by one thread. Ways that select frames may go below it: they leave
out frames that no wanted one refers to. Before anything is timed, the frames of the default way are compared with those
of a plain decode, bit for bit.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from vidprune.errors import VideoDecodeError, VidpruneError
from vidprune.profiling.timing import median_ratio, peak_memory_mib, time_in_turn
from vidprune.types import VideoFrames
from vidprune.video import DecodeStats, ViewPlan, read_frames, read_video
from vidprune.video.colour import to_rgb

FLOOR = "decode only"
PLANES = "pyav planes"


@dataclass(frozen=True)
class DecodeSpeed:
    """One way on one file.

    Attributes:
        way: "pyav" is the default backend, "pyav planes" the same with colour yuv, "plain" decodes and converts every
            frame, the others are what they are named after.
        num_frames, num_wanted, num_decoded: in the file, by the plan, by this way (None where it does not say).
        cpu_ms: CPU time of all threads per video, median.
        ratio: to the floor's, median over rounds.
        peak_mib: the most that the process held beyond what it held before, frames included.
        mean_gap, psnr_db: of its RGB levels (0 to 255) from the default way's; for planes alone, and None where the
            file's format gives none.
    """

    file: str
    size: str
    num_frames: int
    num_wanted: int
    way: str
    num_decoded: int | None
    cpu_ms: float
    ratio: float
    peak_mib: float | None
    mean_gap: float | None
    psnr_db: float | None


def measure_decode(path: Path, plan: ViewPlan, *, rounds: int = 7) -> list[DecodeSpeed]:
    """One row per way of reading `path`.

    Raises:
        VideoDecodeError: the file cannot be read, is damaged, or the default way's frames differ from a plain decode's.
    """
    stats = DecodeStats()
    video = read_frames(path, plan.wanted_frames, short_side=plan.short_side, rounding=plan.rounding, stats=stats)
    _check_equal(path, plan, video)
    ways: dict[str, Callable[[], object]] = {
        FLOOR: partial(_decode_only, path),
        "pyav": partial(read_video, path, plan),
        PLANES: partial(read_video, path, plan, colour="yuv"),
        "plain": partial(_plain, path, plan, video.num_frames_total),
        "opencv": partial(_opencv, path, plan, video.num_frames_total),
    }
    for backend in ("decord", "torchcodec"):
        if _works(partial(read_video, path, plan, backend=backend)):
            ways[backend] = partial(read_video, path, plan, backend=backend)
    seconds = time_in_turn(ways, rounds=rounds, clock=time.process_time)
    gap = _gap(video, read_video(path, plan, colour="yuv"))
    decoded = {
        "pyav": stats.decoded,
        PLANES: stats.decoded,
        FLOOR: video.num_frames_total,
        "plain": video.num_frames_total,
    }
    height, width = video.source_size
    return [
        DecodeSpeed(
            file=path.name,
            size=f"{width}x{height}",
            num_frames=video.num_frames_total,
            num_wanted=len(video.frames),
            way=name,
            num_decoded=decoded.get(name),
            cpu_ms=1e3 * statistics.median(spent),
            ratio=median_ratio(spent, seconds[FLOOR]),
            peak_mib=peak_memory_mib(ways[name]),
            mean_gap=gap[0] if name == PLANES else None,
            psnr_db=gap[1] if name == PLANES else None,
        )
        for name, spent in seconds.items()
    ]


def _check_equal(path: Path, plan: ViewPlan, video: VideoFrames) -> None:
    if video.num_errors:
        raise VideoDecodeError(f"{str(path)!r} has {video.num_errors} damaged packets: a plain decode would stop there")
    plain = _plain(path, plan, video.num_frames_total)
    if not np.array_equal(plain, video.frames):
        raise VideoDecodeError(f"frames of {str(path)!r} differ from those of a plain decode: nothing was timed")


def _gap(video: VideoFrames, planes: VideoFrames) -> tuple[float, float] | tuple[None, None]:
    """Mean difference in levels and PSNR in dB of what models see of `planes`, not rounded, from `video`'s RGB."""
    if planes.colour == "rgb":
        return None, None
    total = squares = 0.0
    for row, expected in enumerate(video.frames):  # a frame at a time: these are floats
        levels = to_rgb(torch.from_numpy(planes.frames[row : row + 1]), planes.colour, planes.size)
        gap = levels[:, 0] - torch.from_numpy(expected).movedim(-1, 0)
        total, squares = total + float(gap.abs().mean()), squares + float(gap.square().mean())
    count = len(planes.frames)
    return total / count, 10 * math.log10(255**2 / (squares / count))


def _frames(path: Path) -> Iterable[tuple[int, object]]:
    import av

    with av.open(str(path), metadata_errors="ignore") as container:
        container.streams.video[0].codec_context.thread_count = 1
        yield from enumerate(container.decode(video=0))


def _decode_only(path: Path) -> int:
    return sum(1 for _ in _frames(path))


def _plain(path: Path, plan: ViewPlan, num_frames: int) -> np.ndarray:
    """The usual short script: every frame converted, the wanted ones resized."""
    import cv2

    wanted, kept = set(plan.wanted_frames(num_frames).tolist()), []
    for number, frame in _frames(path):
        image = frame.to_ndarray(format="rgb24")  # type: ignore[attr-defined]
        if number in wanted:
            image = np.rot90(image, round(frame.rotation / 90) % 4)  # type: ignore[attr-defined]
            height, width = plan.resized_size(*image.shape[:2])
            kept.append(cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_LINEAR))
    return np.stack(kept)


def _opencv(path: Path, plan: ViewPlan, num_frames: int) -> int:
    """OpenCV's reader: every frame grabbed, the wanted ones taken out and resized."""
    import cv2

    wanted, capture, taken = set(plan.wanted_frames(num_frames).tolist()), cv2.VideoCapture(str(path)), 0
    for number in range(num_frames):
        if not capture.grab():
            break
        if number in wanted:
            image = capture.retrieve()[1]
            height, width = plan.resized_size(*image.shape[:2])
            cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            taken += 1
    capture.release()
    return taken


def _works(way: Callable[[], object]) -> bool:
    try:
        way()
    except VidpruneError:  # not installed, or unable to read this file
        return False
    return True
