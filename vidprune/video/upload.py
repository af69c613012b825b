"""Frames on their way to a GPU ahead of time: while the model runs on one video, the next one's cross the bus."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vidprune.types import VideoFrames

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class UploadedFrames(VideoFrames):
    """Decoded frames whose copy on a device is under way or done.

    Attributes:
        pixels: the frames' copy on the device; to be read only after `ready`.
        ready: a CUDA event.
    """

    pixels: torch.Tensor = dataclasses.field(kw_only=True)
    ready: Any = dataclasses.field(kw_only=True)


class Uploader:
    """Starts the upload of a video's frames on a stream of its own and does not wait for it."""

    def __init__(self, device: torch.device) -> None:
        import torch

        self.device = device
        self.stream = torch.cuda.Stream(device)

    def __call__(self, video: VideoFrames) -> VideoFrames:
        """The video with its upload under way; as it is where the device has no room for it."""
        import torch

        host = torch.from_numpy(video.frames).pin_memory()  # only from there does the copy leave this thread alone
        try:
            with torch.cuda.stream(self.stream):
                pixels = host.to(self.device, non_blocking=True)
                ready = self.stream.record_event()
        except torch.OutOfMemoryError:
            return video
        fields = {field.name: getattr(video, field.name) for field in dataclasses.fields(VideoFrames)}
        return UploadedFrames(**fields, pixels=pixels, ready=ready)


def to_device(array: np.ndarray, device: str | torch.device) -> torch.Tensor:
    """A small array on `device`, queued there: unlike a plain copy it does not let this thread wait for the queue."""
    import torch

    return torch.from_numpy(array).to(device, non_blocking=True)  # CUDA stages up to 64 KB before the call returns


def frames_on(video: VideoFrames, device: str | torch.device) -> torch.Tensor:
    """The frames, as `VideoFrames` has them, on `device`: the copy that is there already, or one made now."""
    import torch

    if not isinstance(video, UploadedFrames) or video.pixels.device != torch.device(device):
        return torch.from_numpy(video.frames).to(device)
    current = torch.cuda.current_stream(video.pixels.device)
    current.wait_event(video.ready)  # the device waits, this thread does not
    video.pixels.record_stream(current)  # whose work must end before the memory is used again
    return video.pixels
