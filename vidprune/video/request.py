"""What a backend is asked for: which frames of a file, at which size; and what it counts while it works."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vidprune.errors import ConfigError
from vidprune.types import VideoFrames
from vidprune.video.geometry import ROUNDINGS

FrameSelection = Sequence[int] | np.ndarray | Callable[[int], Sequence[int] | np.ndarray]


def whole_number(name: str, value: Any, minimum: int = 1) -> int:
    """`value` as an int, or a `ConfigError`; booleans, floats (NaN too) and strings are not whole numbers here."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        number = operator.index(value)
    except TypeError:
        raise ConfigError(f"{name} must be a whole number >= {minimum}, got {value!r}") from None
    if number < minimum:
        raise ConfigError(f"{name} must be a whole number >= {minimum}, got {value!r}")
    return number


@dataclass
class DecodeStats:
    """Work counters of one read, set by the PyAV backend; pass one to `read_frames` to see them.

    Attributes:
        packets: compressed packets of the video stream.
        decoded: frames that came out of the decoder, over all passes.
        converted: frames that were turned into RGB, unless planes were asked for, and resized.
        passes: times the packets went through the decoder (more than 1 only where the file is damaged, or where packets
            and frames do not pair up).
        matched_by: "pts" (selective decoding) or "count" (every frame decoded and counted).
    """

    packets: int = 0
    decoded: int = 0
    converted: int = 0
    passes: int = 0
    matched_by: str = ""


@dataclass(frozen=True)
class FrameRequest:
    """The frames one read returns.

    Attributes:
        frames: frame numbers in any order, duplicates allowed, or a function from the file's frame count to them.
        short_side: short side of the result in pixels; None keeps the source size.
        rounding: rule for the long side, see `geometry.resized_size`.
        num_threads: codec threads.
        stats: counters to fill in.
        motion: whether to collect the codec's motion vectors.
        colour: "rgb", or "yuv" for a file's own planes where they can be had, see `vidprune.video.colour`.
        fast: False decodes every frame and sets up the conversion of each anew (PyAV); the frames are the same.
    """

    frames: FrameSelection
    short_side: int | None = None
    rounding: str = "floor"
    num_threads: int = 1
    stats: DecodeStats = field(default_factory=DecodeStats)
    motion: bool = False
    colour: str = "rgb"
    fast: bool = True

    def __post_init__(self) -> None:
        if self.short_side is not None:
            whole_number("short_side", self.short_side)
        whole_number("num_threads", self.num_threads)
        if self.rounding not in ROUNDINGS:
            raise ConfigError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {self.rounding!r}")

    def choose(self, num_frames_total: int) -> np.ndarray:
        """The distinct frames wanted of a file of that many, ascending, int64 [F]; the range is not checked."""
        chosen = self.frames(num_frames_total) if callable(self.frames) else self.frames
        if isinstance(chosen, np.ndarray) and chosen.dtype.kind in "iu":
            numbers = chosen.astype(np.int64).ravel()
        else:
            numbers = np.array([whole_number("frame number", n, minimum=0) for n in chosen], dtype=np.int64)
        if numbers.size == 0:
            raise ConfigError("no frames asked for: give at least one frame number")
        return np.unique(numbers)


def check_range(wanted: np.ndarray, num_frames_total: int, path: Path) -> None:
    """Raises `ConfigError` if a wanted frame number does not exist in the file."""
    outside = wanted[(wanted < 0) | (wanted >= num_frames_total)]
    if outside.size:
        raise ConfigError(
            f"frame {outside[0]} is out of range: {str(path)!r} has {num_frames_total} frames, "
            f"0 to {num_frames_total - 1}"
        )


class Backend(Protocol):
    """A decoder: a function from an existing file and a request to its frames.

    Raises `VideoDecodeError` where no frame can be had, `ConfigError` for frame numbers out of range.
    """

    def __call__(self, path: Path, request: FrameRequest) -> VideoFrames: ...
