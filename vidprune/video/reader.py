"""Read chosen frames of a video file: the checks that every backend shares, then the backend."""

from __future__ import annotations

import os
from pathlib import Path

from vidprune.errors import ConfigError, VideoDecodeError, VidpruneError
from vidprune.types import VideoFrames
from vidprune.video.backends import VIDEO_BACKENDS
from vidprune.video.buffer import FrameShapeError
from vidprune.video.colour import check_colour
from vidprune.video.request import Backend, DecodeStats, FrameRequest, FrameSelection
from vidprune.video.views import ViewPlan

MOTION_BACKENDS = ("pyav",)


def read_frames(
    path: str | os.PathLike[str],
    frames: FrameSelection,
    *,
    short_side: int | None = None,
    rounding: str = "floor",
    backend: str = "pyav",
    num_threads: int = 1,
    stats: DecodeStats | None = None,
    motion: bool = False,
    colour: str = "rgb",
    fast: bool = True,
) -> VideoFrames:
    """Decode chosen frames of a file, each once, upright (rotation flags applied), RGB, optionally resized.

    Frame k is the k-th frame in presentation order, edit lists applied. Pixels keep their coded shape: a sample aspect
    ratio other than 1:1 is not undone, as in the published protocols.

    Args:
        path: a video file.
        frames: frame numbers from 0, in any order, duplicates allowed; or a function that is called with the file's
            frame count and returns them (and once more, should decoding show that the container's count was wrong). The
            result holds the distinct ones in ascending order.
        short_side: short side of the result in pixels (cv2.INTER_LINEAR on uint8, no antialias); None: source size.
        rounding: rule for the long side, "floor" (VideoMAE) or "round" (mmaction2).
        backend: "pyav" (default), "decord" or "torchcodec".
        num_threads: codec threads. One is best for batches: more threads cost CPU time, and videos are independent.
        stats: filled with work counters (pyav only).
        motion: also collect the codec's motion vectors, see `VideoFrames.motion` (pyav only).
        colour: "rgb", or "yuv" to keep the file's luma and chroma planes, resized, and make RGB on the device: less
            work here, and not the same levels (pyav only; files other than 8-bit 4:2:0 come as RGB all the same).
        fast: False decodes every frame and sets up the conversion of each anew, for comparison (pyav only). The frames
            are the same, but where a packet that need not be decoded is damaged so that it spoils others: then only
            decoding it does so.

    Returns:
        The frames. A damaged file gives what it has, as plain decoding would: `num_errors` counts the packets that
        could not be decoded and the frames that the decoder patched up (of those it had to decode), and a wanted frame
        that did not come out repeats the nearest wanted frame that did (`filled`).

    Raises:
        VideoDecodeError: the file is missing, unreadable or has no decodable video, or no motion vectors to collect.
        ConfigError: a frame number out of range, no frames asked for, or a bad option.
        UnknownNameError: an unknown backend.
        MissingDependencyError: a backend whose package is not installed.
    """
    request = FrameRequest(frames, short_side, rounding, num_threads, stats or DecodeStats(), motion, colour, fast)
    check_colour(colour, backend)
    if motion:
        check_motion_backend(backend)
    read: Backend = VIDEO_BACKENDS.get(backend)
    file = _existing_file(path)
    try:
        return read(file, request)
    except VidpruneError:
        raise
    except Exception as error:  # whatever a library makes of a broken file is that file's error, not the batch's end
        what = "" if isinstance(error, FrameShapeError) else f"{type(error).__name__}: "
        raise VideoDecodeError(f"cannot decode {str(file)!r}: {what}{' '.join(str(error).split())}") from error


def read_video(
    path: str | os.PathLike[str],
    plan: ViewPlan,
    *,
    backend: str = "pyav",
    num_threads: int = 1,
    motion: bool = False,
    colour: str = "rgb",
    fast: bool = True,
) -> VideoFrames:
    """The union of the frames that all views of `plan` need, each decoded once and resized once; see `read_frames`."""
    return read_frames(
        path,
        plan.wanted_frames,
        short_side=plan.short_side,
        rounding=plan.rounding,
        backend=backend,
        num_threads=num_threads,
        motion=motion,
        colour=colour,
        fast=fast,
    )


def check_motion_backend(backend: str) -> None:
    """Raises `ConfigError` for a backend that hands out no motion vectors."""
    if backend not in MOTION_BACKENDS:
        raise ConfigError(
            f"motion vectors come from the backend {', '.join(MOTION_BACKENDS)} alone, got backend {backend!r}; "
            "choose that one, or a proposal that looks at pixels"
        )


def _existing_file(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, str | os.PathLike):
        raise ConfigError(f"a video is named by the path of its file, got {path!r}")
    # Absolute: FFmpeg would take the start of a relative name like "10:30.mp4" for a protocol.
    file = Path(os.path.abspath(path))
    if os.path.isdir(file):  # os.path, unlike Path, takes a name that is too long for one that is not there
        raise VideoDecodeError(f"cannot read {str(file)!r}: it is a folder, not a video file")
    if not os.path.exists(file):
        found = "a link that leads to no file" if os.path.islink(file) else "no such file"
        raise VideoDecodeError(f"cannot read {str(file)!r}: {found}")
    if not os.access(file, os.R_OK):
        raise VideoDecodeError(f"cannot read {str(file)!r}: permission denied")
    if not file.is_file():  # reading from a pipe might wait for ever
        raise VideoDecodeError(f"cannot read {str(file)!r}: not a regular file")
    if file.stat().st_size == 0:
        raise VideoDecodeError(f"cannot decode {str(file)!r}: the file is empty")
    return file
