"""The one array that frames are written into: sized by the first frame, resized by OpenCV, gaps filled at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vidprune.errors import VideoDecodeError
from vidprune.types import VideoFrames
from vidprune.video.geometry import resized_size
from vidprune.video.request import FrameRequest


class FrameBuffer:
    """Rows for the wanted frames of one file, uint8 [F, H, W, 3].

    The first frame that arrives fixes H and W; a later frame of another size (a stream may change) is resized to them.
    """

    def __init__(self, wanted: np.ndarray, request: FrameRequest) -> None:
        self.wanted = wanted
        self.request = request
        self.decoded = np.zeros(len(wanted), dtype=bool)
        self.source_size = (0, 0)
        self._frames: np.ndarray | None = None

    def put(self, row: int, image: np.ndarray) -> None:
        """Write an upright image, uint8 RGB [h, w, 3], into a row; resized by cv2.INTER_LINEAR: no antialias."""
        import cv2

        if self._frames is None:
            self.source_size = (image.shape[0], image.shape[1])
            height, width = resized_size(*self.source_size, self.request.short_side, self.request.rounding)
            self._frames = np.empty((len(self.wanted), height, width, 3), dtype=np.uint8)
        target = self._frames[row]
        if target.shape == image.shape:
            np.copyto(target, image)
        else:
            cv2.resize(image, (target.shape[1], target.shape[0]), dst=target, interpolation=cv2.INTER_LINEAR)
        self.decoded[row] = True

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
        )
