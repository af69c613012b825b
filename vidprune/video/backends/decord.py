"""decord 0.6: the decoder of VideoMAE's own test code, here for comparison with published pipelines.

It finds frames by seeking to key frames and counting on, and is silently wrong where counting is: open GOPs and MPEG-4
Part 2 with B frames (frames come out one or two places late), edit lists (hidden frames are counted and shown), AVI
with B frames, MPEG-TS, a change of size. A damaged file is an error, and so is a raw stream. The tests state each of
these facts. It is sound on H.264, HEVC and VP9 with closed GOPs in MP4, MKV and WebM.
"""

from __future__ import annotations

import re
from pathlib import Path

from vidprune.errors import MissingDependencyError, VideoDecodeError
from vidprune.types import VideoFrames
from vidprune.video.buffer import FrameBuffer
from vidprune.video.request import FrameRequest, check_range

FRAMES_PER_BATCH = 16  # decord hands frames over at source size: this bounds them


def read(path: Path, request: FrameRequest) -> VideoFrames:
    """Frames of a file; see `vidprune.video.read_frames`. `num_errors` and `num_filled` are always 0."""
    try:
        import decord
    except ImportError as error:
        raise MissingDependencyError(
            "the decord backend needs the package decord: pip install decord==0.6.0"
        ) from error
    decord.logging.set_level(decord.logging.QUIET)  # its FFmpeg prints; what matters is raised
    try:
        reader = decord.VideoReader(str(path), ctx=decord.cpu(0), num_threads=request.num_threads)
        total = len(reader)
        fps = float(reader.get_avg_fps()) if total else 0.0
    except (RuntimeError, decord.DECORDError) as error:
        raise VideoDecodeError(f"cannot decode {str(path)!r}: decord failed: {_summary(error)}") from error
    if total == 0:
        raise VideoDecodeError(f"cannot decode {str(path)!r}: decord found no frames")
    wanted = request.choose(total)
    check_range(wanted, total, path)
    buffer = FrameBuffer(wanted, request)
    for first in range(0, len(wanted), FRAMES_PER_BATCH):
        numbers = wanted[first : first + FRAMES_PER_BATCH].tolist()
        try:
            batch = reader.get_batch(numbers).asnumpy()
        except (RuntimeError, decord.DECORDError) as error:
            raise VideoDecodeError(f"cannot decode {str(path)!r}: decord failed: {_summary(error)}") from error
        for i, image in enumerate(batch):
            buffer.put(first + i, image)
    return buffer.finish(path, total, 0, fps, "decord")


def _summary(error: BaseException) -> str:
    """decord's messages are lines of source positions and a stack trace; the first line, bare, says what happened."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return re.sub(r"\[[\d:]+\] \S+:\d+: ", "", lines[0]).strip()
