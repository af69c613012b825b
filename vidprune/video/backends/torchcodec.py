"""torchcodec, exact mode. An optional package that needs FFmpeg's shared libraries (4 to 8) on the machine.

Frame-exact in MP4, MKV and WebM (torchcodec 0.13, FFmpeg 8), open GOPs and edit lists too. Where presentation times are
missing or start late it is not: H.264 in AVI is silently wrong; MPEG-4 in AVI, MPEG-TS, raw streams, a change of size,
a cover picture before the video and damaged files are errors.
"""

from __future__ import annotations

from pathlib import Path

from vidprune.errors import MissingDependencyError, VideoDecodeError
from vidprune.types import VideoFrames
from vidprune.video.buffer import FrameBuffer
from vidprune.video.request import FrameRequest, check_range

FRAMES_PER_BATCH = 16  # torchcodec hands frames over at source size: this bounds them


def read(path: Path, request: FrameRequest) -> VideoFrames:
    """Frames of a file; see `vidprune.video.read_frames`. A damaged file is an error, so `num_filled` is always 0."""
    try:
        from torchcodec.decoders import VideoDecoder
    except (ImportError, RuntimeError, OSError) as error:  # RuntimeError, OSError: FFmpeg's libraries were not found
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise MissingDependencyError(
            f"the torchcodec backend cannot be loaded ({reason}): pip install 'vidprune[torchcodec]' and FFmpeg 4 to 8"
        ) from error
    try:
        decoder = VideoDecoder(
            str(path), dimension_order="NHWC", num_ffmpeg_threads=request.num_threads, seek_mode="exact"
        )
        total = len(decoder)
        fps = float(decoder.metadata.average_fps or 0)
    except (RuntimeError, ValueError) as error:
        raise VideoDecodeError(f"cannot decode {str(path)!r}: torchcodec failed: {_first_line(error)}") from error
    wanted = request.choose(max(total, 1))
    check_range(wanted, total, path)
    buffer = FrameBuffer(wanted, request)
    for first in range(0, len(wanted), FRAMES_PER_BATCH):
        numbers = wanted[first : first + FRAMES_PER_BATCH].tolist()
        try:
            batch = decoder.get_frames_at(indices=numbers).data.numpy()
        except (RuntimeError, ValueError, IndexError) as error:
            raise VideoDecodeError(f"cannot decode {str(path)!r}: torchcodec failed: {_first_line(error)}") from error
        for i, image in enumerate(batch):
            buffer.put(first + i, image)
    return buffer.finish(path, total, 0, fps, "torchcodec")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
