"""Views: which frames and which crops of a video the model sees, and their cutting out of the decoded frames.

A view is one temporal segment (a clip) times one spatial crop. Two protocols are published for the same weights and
differ in small ways; both are kept exactly, so that a figure can be compared with either.

| | videomae (VideoMAE's test set-up) | mmaction (mmaction2's configs) |
|---|---|---|
| candidate frames | every stride-th frame of the file: M of them | all N frames |
| clip start, segment k of S | candidate floor(k (M - T) / (S - 1)) | frame round_half_even(k (N - span) / (S - 1)) |
| too short a video | the last candidate is repeated up to T | frame numbers wrap round, modulo N |
| long side after resize | floored | rounded |
| crop k of n | offset floor(k (long - crop) / (n - 1)) | multiples of (long - crop) // (n - 1) |
| order of crops | ascending | first, last, then those between (left, right, middle) |

T = num_frames and span = (T - 1) stride + 1. One segment or one crop means the centre, floored, in both; the published
formulas divide by zero there (videomae) or say the same (mmaction). Both published pipelines crop the full short side
(crop_size = short_side); for a smaller crop the short axis is cropped at its centre, floored.
The rationals are computed in integers. The published code computes `int(k * (d / (S - 1)))` in binary floats: the same
for up to 7 segments and for 9 to 11; for 8 and for most from 12 on it is at times one frame less, where k d / (S - 1)
is whole but the float product falls just below it. mmaction's rounding likewise differs from 15 segments on, at exact
halves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from vidprune.errors import ConfigError
from vidprune.types import IMAGENET_MEAN, IMAGENET_STD, VideoFrames
from vidprune.video.colour import to_rgb
from vidprune.video.geometry import resized_size
from vidprune.video.request import whole_number
from vidprune.video.upload import frames_on, to_device

if TYPE_CHECKING:
    import torch

PROTOCOLS = ("videomae", "mmaction")
MAX_FRAMES, MAX_SIDE = 100_000, 8192
"""What no plan asks for but by a slip: frames of all views of a video, and pixels of their short side."""


@dataclass(frozen=True)
class ViewPlan:
    """The views of a video: `num_segments` clips of `num_frames` frames at `frame_stride`, times `num_crops` squares.

    Attributes:
        num_frames: T, frames of a clip.
        frame_stride: source frames from one frame of a clip to the next.
        num_segments: clips, spread evenly over the video; 1 is its centre.
        num_crops: squares along the long side; 1 is the centre.
        short_side: short side after the resize, in pixels.
        crop_size: side of the crops in pixels, at most `short_side`.
        protocol: "videomae" or "mmaction", see the module's table.
    """

    num_frames: int = 16
    frame_stride: int = 4
    num_segments: int = 5
    num_crops: int = 3
    short_side: int = 224
    crop_size: int = 224
    protocol: str = "videomae"

    def __post_init__(self) -> None:
        for name in ("num_frames", "frame_stride", "num_segments", "num_crops", "short_side", "crop_size"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name)))
        if self.protocol not in PROTOCOLS:
            raise ConfigError(f"protocol must be one of {', '.join(PROTOCOLS)}, got {self.protocol!r}")
        if self.crop_size > self.short_side:
            raise ConfigError(f"crop_size must be at most short_side = {self.short_side}, got {self.crop_size}")
        if self.num_frames * self.num_views > MAX_FRAMES or self.short_side > MAX_SIDE:
            raise ConfigError(
                f"num_frames x num_segments x num_crops must be at most {MAX_FRAMES:,} and short_side at most "
                f"{MAX_SIDE:,}, got {self.num_frames} x {self.num_segments} x {self.num_crops} and {self.short_side}"
            )

    @property
    def num_views(self) -> int:
        return self.num_segments * self.num_crops

    @property
    def rounding(self) -> str:
        """How the resize makes the long side whole: "floor" or "round"."""
        return "floor" if self.protocol == "videomae" else "round"

    def frame_indices(self, num_frames_total: int) -> np.ndarray:
        """Source frame number of every clip's frames in a file of `num_frames_total` frames, int64 [S, T]."""
        total = whole_number("num_frames_total", num_frames_total)
        if self.protocol == "videomae":
            return _videomae_frames(total, self.num_frames, self.frame_stride, self.num_segments)
        return _mmaction_frames(total, self.num_frames, self.frame_stride, self.num_segments)

    def wanted_frames(self, num_frames_total: int) -> np.ndarray:
        """The distinct frame numbers that the clips use together, ascending, int64 [F]."""
        return np.unique(self.frame_indices(num_frames_total))

    def resized_size(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) of the resized frames; the size itself where its short side already is `short_side`."""
        return resized_size(
            whole_number("height", height), whole_number("width", width), self.short_side, self.rounding
        )

    def crop_offsets(self, height: int, width: int) -> list[tuple[int, int]]:
        """(top, left) of each crop in a resized frame, in the protocol's own order; crops run down a square frame."""
        if min(height, width) < self.crop_size:
            raise ConfigError(f"frames of {height} x {width} are smaller than the crop of {self.crop_size}")
        space = max(height, width) - self.crop_size
        centre = (min(height, width) - self.crop_size) // 2
        last = self.num_crops - 1
        if last == 0:
            along = [space // 2]
        elif self.protocol == "videomae":
            along = [k * space // last for k in range(self.num_crops)]
        else:
            order = [0, last, *range(1, last)]
            along = [k * (space // last) for k in order]  # the last crop may stop short of the edge by up to n - 2 px
        return [(a, centre) if height >= width else (centre, a) for a in along]


def _videomae_frames(total: int, num_frames: int, stride: int, num_segments: int) -> np.ndarray:
    """VideoMAE's clips, int64 [S, T]: strided candidates first, then windows of consecutive candidates."""
    candidates = np.arange(0, total, stride, dtype=np.int64)
    missing = max(num_frames - len(candidates), 0)
    candidates = np.concatenate([candidates, np.full(missing, candidates[-1])])
    space = len(candidates) - num_frames
    last = num_segments - 1
    starts = [space // 2] if last == 0 else [k * space // last for k in range(num_segments)]
    return np.stack([candidates[start : start + num_frames] for start in starts])


def _mmaction_frames(total: int, num_frames: int, stride: int, num_segments: int) -> np.ndarray:
    """mmaction2's clips, int64 [S, T]: windows of source frames, wrapping round in a video shorter than the span."""
    space = max(total - ((num_frames - 1) * stride + 1), 0)
    last = num_segments - 1
    # round() of a Fraction goes half to even, as numpy's does.
    starts = [space // 2] if last == 0 else [round(Fraction(k * space, last)) for k in range(num_segments)]
    clip = np.arange(num_frames, dtype=np.int64) * stride
    return (np.array(starts, dtype=np.int64)[:, None] + clip) % total


def cut_views(
    video: VideoFrames,
    plan: ViewPlan,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    views: slice | None = None,
) -> torch.Tensor:
    """The model's input: normalised views [V, 3, T, crop, crop], segment-major (all crops of segment 0 first).

    The uint8 frames go to the device once; clips, crops, colours (of frames that are not RGB) and
    `((x / 255) - mean) / std` happen there, in float32.

    Args:
        video: frames of `read_video` with the same plan.
        dtype: of the result; None is float32.
        views: build only these of the `plan.num_views` views, to bound memory.

    Raises:
        ConfigError: `video` lacks frames that the plan needs, or has another short side.
    """
    import torch

    height, width = video.size
    if min(height, width) != plan.short_side:
        raise ConfigError(f"frames of {height} x {width} do not have the plan's short side of {plan.short_side}")
    offsets, size = plan.crop_offsets(height, width), plan.crop_size
    chosen = range(plan.num_views)[views if views is not None else slice(None)]
    of_views = np.array([view // plan.num_crops for view in chosen], dtype=np.int64)
    rows, place = np.unique(clip_rows(video, plan)[of_views], return_inverse=True)
    levels = _levels(video, rows, device, dtype or torch.float32, mean, std)
    index = to_device(place.reshape(len(chosen), plan.num_frames), device)  # [V, T]
    out = levels.new_empty((len(chosen), 3, plan.num_frames, size, size))
    for i, view in enumerate(chosen):
        top, left = offsets[view % plan.num_crops]
        out[i] = levels[:, index[i], top : top + size, left : left + size]
    return out


def whole_clips(
    video: VideoFrames, plan: ViewPlan, *, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> torch.Tensor:
    """The frames that crops are cut from, normalised as `cut_views` does: [S, 3, T, H, W], one clip per segment."""
    import torch

    rows, place = np.unique(clip_rows(video, plan), return_inverse=True)
    levels = _levels(video, rows, device, dtype or torch.float32, IMAGENET_MEAN, IMAGENET_STD)
    index = to_device(place.reshape(plan.num_segments, plan.num_frames), device)
    return levels[:, index].transpose(0, 1)  # [3, S, T, H, W] -> [S, 3, T, H, W]


def _levels(
    video: VideoFrames,
    rows: np.ndarray,
    device: str | torch.device,
    dtype: torch.dtype,
    mean: Sequence[float],
    std: Sequence[float],
) -> torch.Tensor:
    """Some frames, normalised: [3, R, H, W]. Each once, however many views show it, and planes first: half the time."""
    stored = frames_on(video, device)
    if len(rows) < len(stored):
        stored = stored[to_device(rows, device)]
    planes = to_rgb(stored, video.colour, video.size)
    for plane, channel_mean, channel_std in zip(planes, mean, std, strict=True):  # numbers, not tensors: no upload
        plane.div_(255).sub_(channel_mean).div_(channel_std)
    return planes.to(dtype)


def clip_rows(video: VideoFrames, plan: ViewPlan) -> np.ndarray:
    """Row of `video.frames` for every frame of every clip, int64 [S, T]."""
    indices = plan.frame_indices(video.num_frames_total)
    missing = np.setdiff1d(indices, video.frame_numbers)
    if missing.size:
        raise ConfigError(
            f"the plan needs frame {missing[0]}, which was not read; read the file with read_video and this plan"
        )
    return np.searchsorted(video.frame_numbers, indices)
