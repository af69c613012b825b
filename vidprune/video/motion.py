"""The codec's own motion vectors, collected while a file is decoded for its frames: a motion field at no extra pass.

FFmpeg exports one vector per block and direction, in fractions of a pixel, between the block and what it was predicted
from, but not how many frames lie between the two. That distance is taken to be the one to the nearest key or P frame on
that side, which is right for a first reference without B-frame pyramids and an upper bound of the speed otherwise.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Any

import numpy as np

from vidprune.errors import VideoDecodeError

CELL = 16
"""Pixels of the source along one side of a cell: a macroblock."""

# Decoders of FFmpeg that export vectors; those of HEVC, VP8, VP9 and AV1 do not.
MOTION_CODECS = frozenset({"h264", "mpeg4", "mpeg2video", "mpeg1video"})

_VECTOR = np.dtype(  # AVMotionVector
    {
        "names": ["source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale"],
        "formats": ["<i4", "u1", "u1", "<i2", "<i2", "<i4", "<i4", "<u2"],
        "offsets": [0, 4, 5, 10, 12, 24, 28, 32],
        "itemsize": 40,
    }
)
_ANCHORS = (1, 2, 4)  # AV_PICTURE_TYPE_I, _P and _S: what other frames are predicted from
_MAX_HELD = 100_000 * _VECTOR.itemsize  # bytes, 4 MB: some 200 frames of 340 x 256
_NO_TIME = np.inf  # of a reference that is not there: its vectors say nothing


def export_motion(context: Any, path: Path) -> None:
    """Make a PyAV codec context, not yet open, hand out motion vectors."""
    if context.name not in MOTION_CODECS:
        raise VideoDecodeError(
            f"no motion vectors in {str(path)!r}: decoders of {', '.join(sorted(MOTION_CODECS))} export them, "
            f"that of {context.name} does not; re-encode the file or take another proposal"
        )
    context.options = {**context.options, "flags2": "+export_mvs"}


def quarter_turns_of(frame: Any) -> int:
    """Counterclockwise quarter turns that bring a decoded frame upright."""
    return round(frame.rotation / 90) % 4


class MotionRecorder:
    """Collects the vectors of wanted frames; nothing is done for the others but to note which are references."""

    def __init__(self, num_wanted: int) -> None:
        self._numbers = np.zeros(num_wanted, dtype=np.int64)
        self._anchors: list[int] = []  # numbers of key and P frames, ascending
        self._shape = (1, 1)
        self._turns = 0
        self._held: list[tuple[int, bytes]] = []  # row and vectors of frames not yet summed up
        self._num_held = 0  # bytes
        self._sums: np.ndarray | None = None  # float32 [F, 2, h, w, 3]: past and future; area times dx and dy, area

    def take(self, row: int | None, number: int, frame: Any) -> None:
        """Take every decoded frame, in presentation order: vectors of one that is wanted (has a row), else its kind."""
        if int(frame.pict_type) in _ANCHORS:
            self._anchors.append(number)
        if row is None:
            return
        shape = (-(-frame.height // CELL), -(-frame.width // CELL))
        if self._sums is None:
            self._shape, self._turns = shape, quarter_turns_of(frame)
            self._sums = np.zeros((len(self._numbers), 2, *shape, 3), dtype=np.float32)
        self._numbers[row] = number
        data = frame.side_data.get("MOTION_VECTORS")
        if data is not None and shape == self._shape:  # after a change of size the cells no longer match
            vectors = bytes(data)  # the frame's memory goes with the frame
            self._held.append((row, vectors))
            self._num_held += len(vectors)
            if self._num_held > _MAX_HELD:
                self._sum_up()

    def finish(self) -> np.ndarray:
        """float32 [F, h16, w16, 2], see `VideoFrames.motion`."""
        if self._sums is None:
            return np.full((len(self._numbers), *self._shape, 2), np.nan, dtype=np.float32)
        self._sum_up()
        past, future = np.array([self._distances(int(number)) for number in self._numbers], dtype=np.float32).T
        # A vector points from the block to its source: backwards in time for the past, forwards for the future.
        travelled = self._sums[:, 1, ..., :2] / _per_row(future) - self._sums[:, 0, ..., :2] / _per_row(past)
        with np.errstate(invalid="ignore"):  # 0 / 0 where there was no block
            field = travelled / self._sums[..., 2].sum(axis=1)[..., None]
        return _turned(field, self._turns)

    def _distances(self, number: int) -> tuple[float, float]:
        """Frames from frame `number` to the nearest reference before it and after it."""
        before, after = bisect_left(self._anchors, number) - 1, bisect_right(self._anchors, number)
        past = number - self._anchors[before] if before >= 0 else _NO_TIME
        future = self._anchors[after] - number if after < len(self._anchors) else _NO_TIME
        return past, future

    def _sum_up(self) -> None:
        """Of many frames at once: per frame, the calls alone would cost more than the sums."""
        if self._held and self._sums is not None:
            rows, vectors = zip(*self._held, strict=True)
            place = np.repeat(np.arange(len(rows)), [len(v) // _VECTOR.itemsize for v in vectors])
            # Joined as bytes: NumPy joins and copies structured arrays field by field.
            joined = np.frombuffer(b"".join(vectors), dtype=_VECTOR)
            self._sums[list(rows)] = sums_per_cell(joined, place, len(rows), self._shape)
        self._held, self._num_held = [], 0


def sums_per_cell(vectors: np.ndarray, frame: np.ndarray, num_frames: int, shape: tuple[int, int]) -> np.ndarray:
    """Vectors in pixels times the area of their blocks, and the areas, summed over cells: float64 [F, 2, h, w, 3].

    `frame` says which of the `num_frames` each vector belongs to; the second axis is past and future.
    """
    height, width = shape
    y = np.clip(vectors["dst_y"].astype(np.int64) // CELL, 0, height - 1)
    x = np.clip(vectors["dst_x"].astype(np.int64) // CELL, 0, width - 1)
    cell = ((2 * frame + (vectors["source"] > 0)) * height + y) * width + x
    area = vectors["w"].astype(np.float64) * vectors["h"]
    weight = area / np.maximum(vectors["motion_scale"], 1)
    terms = (vectors["motion_x"] * weight, vectors["motion_y"] * weight, area)
    sums = [np.bincount(cell, weights=term, minlength=2 * num_frames * height * width) for term in terms]
    return np.stack(sums, axis=-1).reshape(num_frames, 2, height, width, 3)


def _per_row(values: np.ndarray) -> np.ndarray:
    return values[:, None, None, None]


def _turned(field: np.ndarray, quarter_turns: int) -> np.ndarray:
    """The field of the upright frames: cells turned as `np.rot90` turns pixels, and the vectors with them."""
    for _ in range(quarter_turns):
        field = np.rot90(field, axes=(1, 2))
        field = np.stack([field[..., 1], -field[..., 0]], axis=-1)  # rightwards becomes upwards
    return np.ascontiguousarray(field)
