"""Frames from a worker to its parent: through anonymous shared memory where the system has it, else through the pipe.

A 10 s video is 15 MB of frames. Through a pipe they cost the parent several copies, during which it cannot start work
on the device: 25 ms of its CPU time per video on a 2-core machine. A descriptor of anonymous memory costs 2 ms. That
memory has no file name, so a process that is killed leaves nothing behind, and a small /dev/shm does not matter.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass, fields, replace
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from vidprune.types import VideoFrames


@dataclass(frozen=True)
class Decoded:
    """One file: its frames, or the reason why there are none. `seconds` is the time its decoding took."""

    position: int
    video: VideoFrames | None
    error: str | None
    seconds: float


@dataclass(frozen=True)
class _Announced:
    """A `Decoded` whose frames follow as a descriptor, in this shape."""

    item: Decoded
    shape: tuple[int, ...]
    rest: dict[str, Any]


def send(connection: Connection, item: Decoded) -> None:
    """Send from a worker; blocks until the parent takes it."""
    if item.video is None or not hasattr(os, "memfd_create"):
        connection.send(item)
        return
    frames = np.ascontiguousarray(item.video.frames)  # already so, nothing is copied
    rest = {field.name: getattr(item.video, field.name) for field in fields(VideoFrames) if field.name != "frames"}
    descriptor = os.memfd_create("frames")
    try:
        unwritten = frames.reshape(-1).data
        while unwritten:
            unwritten = unwritten[os.write(descriptor, unwritten) :]
        connection.send(_Announced(replace(item, video=None), frames.shape, rest))
        reduction.send_handle(connection, descriptor, None)
    finally:
        os.close(descriptor)


def receive(connection: Connection) -> Any:
    """What a worker sent: a `Decoded`, or another message as it is. Raises `EOFError` or `OSError` if it died."""
    message = connection.recv()
    if not isinstance(message, _Announced):
        return message
    descriptor = reduction.recv_handle(connection)
    try:
        memory = mmap.mmap(descriptor, 0, access=mmap.ACCESS_COPY)  # freed with the last array that looks into it
    finally:
        os.close(descriptor)
    frames = np.frombuffer(memory, dtype=np.uint8).reshape(message.shape)
    return replace(message.item, video=VideoFrames(frames=frames, **message.rest))
