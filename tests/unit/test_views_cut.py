"""Cutting views out of frames, against a plain NumPy loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidprune.errors import ConfigError
from vidprune.types import IMAGENET_MEAN, IMAGENET_STD, VideoFrames
from vidprune.video import ViewPlan, cut_views

PLANS = {
    "videomae": ViewPlan(num_frames=4, frame_stride=3, num_segments=3, num_crops=3, short_side=32, crop_size=32),
    "mmaction": ViewPlan(4, 3, 3, 3, 32, 32, protocol="mmaction"),
    "small_crops": ViewPlan(num_frames=4, frame_stride=3, num_segments=2, num_crops=4, short_side=32, crop_size=20),
    "one_view": ViewPlan(num_frames=4, frame_stride=3, num_segments=1, num_crops=1, short_side=32, crop_size=32),
}
SHAPES = [(32, 51), (51, 32), (32, 32)]


def frames_of(plan: ViewPlan, total: int, height: int, width: int) -> VideoFrames:
    """A video of random pixels, of which the plan's frames were read."""
    numbers = plan.wanted_frames(total)
    pixels = np.random.default_rng(0).integers(0, 256, (len(numbers), height, width, 3), dtype=np.uint8)
    return VideoFrames(pixels, numbers, total, 0, 0, np.zeros(len(numbers), bool), 30.0, (height, width), "made")


def loop(video: VideoFrames, plan: ViewPlan) -> np.ndarray:
    """Every view, frame by frame and channel by channel, float64 [V, 3, T, crop, crop]."""
    place = {int(n): row for row, n in enumerate(video.frame_numbers)}
    size = plan.crop_size
    views = []
    for clip in plan.frame_indices(video.num_frames_total):
        for top, left in plan.crop_offsets(*video.frames.shape[1:3]):
            view = np.empty((3, plan.num_frames, size, size))
            for t, number in enumerate(clip):
                image = video.frames[place[int(number)]][top : top + size, left : left + size]
                for channel in range(3):
                    view[channel, t] = (image[..., channel] / 255.0 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
            views.append(view)
    return np.stack(views)


@pytest.mark.parametrize("name", PLANS)
@pytest.mark.parametrize(("height", "width"), SHAPES)
@pytest.mark.parametrize("total", [2, 10, 47])
def test_views_equal_a_plain_loop(name: str, height: int, width: int, total: int) -> None:
    plan = PLANS[name]
    video = frames_of(plan, total, height, width)
    views = cut_views(video, plan)
    assert views.dtype == torch.float32
    assert views.shape == (plan.num_views, 3, plan.num_frames, plan.crop_size, plan.crop_size)
    np.testing.assert_allclose(views.numpy(), loop(video, plan), rtol=0, atol=2e-6)


def test_views_are_segment_major() -> None:
    plan = PLANS["videomae"]
    video = frames_of(plan, 47, 32, 51)
    views = cut_views(video, plan)
    single = ViewPlan(4, 3, 3, 1, 32, 32)  # the centre crop alone: the middle one of each segment
    torch.testing.assert_close(cut_views(video, single), views[1::3], rtol=0, atol=0)


@pytest.mark.parametrize("part", [slice(0, 4), slice(4, None), slice(None, None, 3), slice(-1, None), slice(5, 5)])
def test_a_part_of_the_views_is_that_part(part: slice) -> None:
    plan = PLANS["videomae"]
    video = frames_of(plan, 47, 51, 32)
    torch.testing.assert_close(cut_views(video, plan, views=part), cut_views(video, plan)[part], rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_lower_precision_is_the_float32_result_rounded(dtype: torch.dtype) -> None:
    plan = PLANS["videomae"]
    video = frames_of(plan, 47, 32, 51)
    torch.testing.assert_close(cut_views(video, plan, dtype=dtype), cut_views(video, plan).to(dtype), rtol=0, atol=0)


def test_other_normalisation() -> None:
    plan = PLANS["one_view"]
    video = frames_of(plan, 47, 32, 32)
    views = cut_views(video, plan, mean=(0, 0, 0), std=(1 / 255,) * 3)
    rows = np.searchsorted(video.frame_numbers, plan.frame_indices(47)[0])
    np.testing.assert_allclose(views[0].permute(1, 2, 3, 0).numpy(), video.frames[rows], rtol=0, atol=1e-4)


def test_frames_that_do_not_fit_the_plan_are_refused() -> None:
    plan = PLANS["videomae"]
    with pytest.raises(ConfigError, match="the plan needs frame 1"):
        cut_views(frames_of(plan, 47, 32, 51), ViewPlan(4, 1, 3, 3, 32, 32))
    with pytest.raises(ConfigError, match="do not have the plan's short side of 32"):
        cut_views(frames_of(plan, 47, 40, 51), plan)
