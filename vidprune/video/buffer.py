"""The one array that frames are written into: sized by the first frame, resized by OpenCV, gaps filled at the end.

Resizing is cv2.INTER_LINEAR, without antialias, as in VideoMAE's test code.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vidprune.errors import VideoDecodeError
from vidprune.types import VideoFrames
from vidprune.video.colour import plane_sizes, split_planes
from vidprune.video.geometry import resized_size
from vidprune.video.request import FrameRequest

# Of a frame that is resized. A sliver of 1 x 16000 pixels with its short side made 224 would be 2.4 GB.
MAX_ASPECT_RATIO = 32


class FrameShapeError(ValueError):
    """Frames of a shape that no video has."""


class FrameBuffer:
    """Rows for the wanted frames of one file, uint8 [F, H, W, 3], or [F, N] where planes are written.

    The first frame that arrives fixes H and W; a later frame of another size (a stream may change) is resized to them.
    It also fixes `colour`, which is None before: as in `VideoFrames`.
    """

    def __init__(self, wanted: np.ndarray, request: FrameRequest) -> None:
        self.wanted = wanted
        self.request = request
        self.decoded = np.zeros(len(wanted), dtype=bool)
        self.source_size = (0, 0)
        self.colour: str | None = None
        self._size = (0, 0)
        self._planes: list[np.ndarray] = []
        self._frames: np.ndarray | None = None

    def put(self, row: int, image: np.ndarray) -> None:
        """Write an upright image, uint8 RGB [h, w, 3], into a row."""
        if self._frames is None:
            self._start(image, "rgb")
            self._frames = np.empty((len(self.wanted), *self._size, 3), dtype=np.uint8)
        _resize_into(self._frames[row], image)
        self.decoded[row] = True

    def put_planes(self, row: int, planes: Sequence[np.ndarray], colour: str) -> None:
        """Write upright planes Y, Cb and Cr, uint8 [h, w] each, into a row; each is resized to its size there."""
        if self._frames is None:
            self._start(planes[0], colour)
            num_levels = sum(h * w for h, w in plane_sizes(*self._size))
            self._frames = np.empty((len(self.wanted), num_levels), dtype=np.uint8)
            self._planes = split_planes(self._frames, *self._size)  # views of it: [F, h, w] each
        for rows, plane in zip(self._planes, planes, strict=True):
            _resize_into(rows[row], plane)
        self.decoded[row] = True

    def _start(self, image: np.ndarray, colour: str) -> None:
        """Settle what the first frame settles."""
        self.source_size, self.colour = (image.shape[0], image.shape[1]), colour
        short, long = sorted(self.source_size)
        if self.request.short_side not in (None, short) and long > MAX_ASPECT_RATIO * short:
            raise FrameShapeError(
                f"its frames have {image.shape[0]} x {image.shape[1]} pixels; resized are those whose long side is at "
                f"most {MAX_ASPECT_RATIO} times the short one"
            )
        self._size = resized_size(*self.source_size, self.request.short_side, self.request.rounding)

    def finish(
        self,
        path: Path,
        num_frames_total: int,
        num_errors: int,
        fps: float,
        backend: str,
        motion: np.ndarray | None = None,
    ) -> VideoFrames:
        """Fill rows that never came from the nearest one that did (the earlier on a tie), and hand the frames over."""
        if self._frames is None:
            raise VideoDecodeError(
                f"cannot decode {str(path)!r}: none of the {len(self.wanted)} wanted frames came out of the decoder "
                f"({num_errors} damaged packets)"
            )
        sources = np.flatnonzero(self.decoded)
        for row in np.flatnonzero(~self.decoded):
            nearest = np.argmin(np.abs(self.wanted[sources] - self.wanted[row]))
            self._frames[row] = self._frames[sources[nearest]]
        return VideoFrames(
            frames=self._frames,
            frame_numbers=self.wanted,
            num_frames_total=num_frames_total,
            num_errors=num_errors,
            num_filled=int((~self.decoded).sum()),
            filled=~self.decoded,
            fps=fps,
            source_size=self.source_size,
            backend=backend,
            motion=motion,
            colour=self.colour or "rgb",
            size_of_planes=None if self.colour == "rgb" else self._size,
        )


def _resize_into(target: np.ndarray, image: np.ndarray) -> None:
    """`image` [h, w] or [h, w, 3] at the size of `target`, which has the same number of axes."""
    import cv2

    if target.shape == image.shape:
        np.copyto(target, image)
    else:
        cv2.resize(image, (target.shape[1], target.shape[0]), dst=target, interpolation=cv2.INTER_LINEAR)
