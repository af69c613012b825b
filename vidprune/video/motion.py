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
        self._sums: list[np.ndarray | None] = [None] * num_wanted  # float64 [2, h, w, 3]: past and future; dx, dy, area
        self._numbers = np.zeros(num_wanted, dtype=np.int64)
        self._turns = 0
        self._anchors: list[int] = []  # numbers of key and P frames, ascending
        self._shape: tuple[int, int] | None = None

    def take(self, row: int | None, number: int, frame: Any) -> None:
        """Take every decoded frame, in presentation order: vectors of one that is wanted (has a row), else its kind."""
        if int(frame.pict_type) in _ANCHORS:
            self._anchors.append(number)
        if row is None:
            return
        shape = (-(-frame.height // CELL), -(-frame.width // CELL))
        self._shape, self._turns = self._shape or shape, quarter_turns_of(frame)
        self._numbers[row] = number
        data = frame.side_data.get("MOTION_VECTORS")
        if data is not None and shape == self._shape:  # after a change of size the cells no longer match
            self._sums[row] = _sums_per_cell(np.frombuffer(data, dtype=_VECTOR), shape)

    def finish(self) -> np.ndarray:
        """float32 [F, h16, w16, 2], see `VideoFrames.motion`."""
        height, width = self._shape or (1, 1)
        field = np.full((len(self._sums), height, width, 2), np.nan, dtype=np.float32)
        for row, sums in enumerate(self._sums):
            if sums is not None:
                field[row] = self._per_frame(sums, int(self._numbers[row]))
        return _turned(field, self._turns)

    def _per_frame(self, sums: np.ndarray, number: int) -> np.ndarray:
        """Sums over blocks [2, h, w, 3] -> mean velocity [h, w, 2] in pixels per frame, NaN without any block."""
        before, after = bisect_left(self._anchors, number) - 1, bisect_right(self._anchors, number)
        past = number - self._anchors[before] if before >= 0 else _NO_TIME
        future = self._anchors[after] - number if after < len(self._anchors) else _NO_TIME
        # A vector points from the block to its source: backwards in time for the past, forwards for the future.
        travelled = sums[0, ..., :2] / -past + sums[1, ..., :2] / future
        with np.errstate(invalid="ignore", divide="ignore"):
            return travelled / sums[..., 2].sum(axis=0)[..., None]


def _sums_per_cell(vectors: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Vectors in pixels times the area of their blocks, and the areas, summed over each cell: [2, h, w, 3]."""
    height, width = shape
    y = np.clip(vectors["dst_y"] // CELL, 0, height - 1).astype(np.int64)
    x = np.clip(vectors["dst_x"] // CELL, 0, width - 1)
    cell = ((vectors["source"] > 0) * height + y) * width + x
    area = vectors["w"].astype(np.float64) * vectors["h"]
    weight = area / np.maximum(vectors["motion_scale"], 1)
    terms = (vectors["motion_x"] * weight, vectors["motion_y"] * weight, area)
    sums = [np.bincount(cell, weights=term, minlength=2 * height * width) for term in terms]
    return np.stack(sums, axis=-1).reshape(2, height, width, 3)


def _turned(field: np.ndarray, quarter_turns: int) -> np.ndarray:
    """The field of the upright frames: cells turned as `np.rot90` turns pixels, and the vectors with them."""
    for _ in range(quarter_turns):
        field = np.rot90(field, axes=(1, 2))
        field = np.stack([field[..., 1], -field[..., 0]], axis=-1)  # rightwards becomes upwards
    return np.ascontiguousarray(field)
