"""Decoders for tests: frames made from the path's name, and paths that hang, crash or cannot be read."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from vidprune.errors import MissingDependencyError, VideoDecodeError
from vidprune.types import VideoFrames
from vidprune.video import ViewPlan

PLAN = ViewPlan(num_frames=4, frame_stride=1, num_segments=2, num_crops=3, short_side=32, crop_size=32)


def made_up(path: str, seconds: float = 0.0) -> VideoFrames:
    """Noise that depends on the name alone: uint8 [12, 32, 40, 3]. Some names misbehave."""
    name = Path(path).name
    time.sleep(seconds)
    if name == "hangs":
        time.sleep(3600)
    if name == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if name == "exits":
        os._exit(7)
    if name == "unreadable":
        raise VideoDecodeError(f"cannot decode {path!r}: nothing in it")
    if name == "bug":
        raise ZeroDivisionError("in the decoder")
    if name == "no_decoder":
        raise MissingDependencyError("the decoder is not installed")
    seed = int.from_bytes(name.encode(), "little") % 2**32
    frames = np.random.default_rng(seed).integers(0, 256, (12, 32, 40, 3), dtype=np.uint8)
    return VideoFrames(frames, np.arange(12), 12, len(name) % 3, 0, np.zeros(12, bool), 30.0, (32, 40), "made up")


def made_up_planes(path: str) -> VideoFrames:
    """The same as planes: Y of 32 x 41, Cb and Cr of 16 x 21."""
    levels = np.random.default_rng(len(path)).integers(0, 256, (12, 32 * 41 + 2 * 16 * 21), dtype=np.uint8)
    return replace(made_up(path), frames=levels, colour="bt709", size_of_planes=(32, 41))
