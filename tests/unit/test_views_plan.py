"""View plans against the published formulas, written here as published: in binary floats."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vidprune.errors import ConfigError
from vidprune.video import ViewPlan
from vidprune.video.geometry import resized_size

LENGTHS = range(1, 401)
SIZES = [(h, w) for short in (112, 224, 225, 240, 256, 320, 340, 480, 721, 1080) for long in range(short, 2 * short, 37)
         for h, w in ((short, long), (long, short))]  # fmt: skip


def published_videomae_clips(total: int, num_frames: int, stride: int, segments: int) -> np.ndarray:
    candidates = list(range(0, total, stride))
    while len(candidates) < num_frames:
        candidates.append(candidates[-1])
    step = max(1.0 * (len(candidates) - num_frames) / (segments - 1), 0)
    return np.array([candidates[int(k * step) : int(k * step) + num_frames] for k in range(segments)])


def published_mmaction_clips(total: int, num_frames: int, stride: int, segments: int) -> np.ndarray:
    max_offset = max(total - ((num_frames - 1) * stride + 1), 0)
    offsets = np.round(np.arange(segments) * (max_offset / float(segments - 1))).astype(np.int64)
    return np.mod(offsets[:, None] + np.arange(num_frames)[None] * stride, total)


PUBLISHED = {"videomae": published_videomae_clips, "mmaction": published_mmaction_clips}


@pytest.mark.parametrize("protocol", PUBLISHED)
@pytest.mark.parametrize(("num_frames", "stride"), [(16, 4), (8, 8), (16, 1), (32, 2), (5, 3)])
def test_clips_equal_the_published_formula(protocol: str, num_frames: int, stride: int) -> None:
    for segments in (2, 3, 4, 5, 6, 7, 9, 10, 11):
        plan = ViewPlan(num_frames=num_frames, frame_stride=stride, num_segments=segments, protocol=protocol)
        for total in LENGTHS:
            indices = plan.frame_indices(total)
            assert indices.dtype == np.int64
            assert np.array_equal(indices, PUBLISHED[protocol](total, num_frames, stride, segments)), (total, segments)


def test_clips_of_a_300_frame_video() -> None:
    assert ViewPlan().frame_indices(300)[:, 0].tolist() == [0, 56, 116, 176, 236]
    assert ViewPlan(protocol="mmaction").frame_indices(300)[:, 0].tolist() == [0, 60, 120, 179, 239]
    assert len(ViewPlan().wanted_frames(300)) == 75


@pytest.mark.parametrize("segments", [8, 12, 30])
def test_videomae_differs_from_binary_floats_only_where_those_fall_below_a_whole_number(segments: int) -> None:
    plan = ViewPlan(num_frames=16, frame_stride=1, num_segments=segments)
    differences = 0
    for total in LENGTHS:
        ours = plan.frame_indices(total)[:, 0]
        floats = published_videomae_clips(total, 16, 1, segments)[:, 0]
        for k in np.flatnonzero(ours != floats):
            assert k * (total - 16) % (segments - 1) == 0
            assert ours[k] == k * (total - 16) // (segments - 1) == floats[k] + 1
            differences += 1
    assert differences > 0, "the module's note on binary floats no longer holds"


def test_mmaction_differs_from_binary_floats_only_at_exact_halves() -> None:
    segments, differences = 15, 0
    plan = ViewPlan(num_frames=16, frame_stride=1, num_segments=segments, protocol="mmaction")
    for total in range(30, 401):  # long enough that nothing wraps round
        ours = plan.frame_indices(total)[:, 0]
        floats = published_mmaction_clips(total, 16, 1, segments)[:, 0]
        for k in np.flatnonzero(ours != floats):
            assert 2 * k * (total - 16) % (segments - 1) == 0
            assert abs(ours[k] - floats[k]) == 1
            assert ours[k] % 2 == 0  # half to even
            differences += 1
    assert differences > 0, "the module's note on binary floats no longer holds"


def test_short_videos_repeat_the_last_candidate_or_wrap_round() -> None:
    assert ViewPlan(num_frames=6, num_segments=2).frame_indices(10).tolist() == [[0, 4, 8, 8, 8, 8]] * 2
    assert (
        ViewPlan(num_frames=6, num_segments=2, protocol="mmaction").frame_indices(10).tolist()
        == [[0, 4, 8, 2, 6, 0]] * 2
    )
    for protocol in PUBLISHED:
        assert ViewPlan(protocol=protocol).wanted_frames(1).tolist() == [0]


def test_one_segment_is_the_centre() -> None:
    assert ViewPlan(num_segments=1).frame_indices(300)[0, 0] == 4 * ((75 - 16) // 2)
    assert ViewPlan(num_segments=1, protocol="mmaction").frame_indices(300)[0, 0] == (300 - 61) // 2
    for protocol in PUBLISHED:  # here the same clip as the middle one of three
        three, one = (ViewPlan(num_segments=n, protocol=protocol).frame_indices(301) for n in (3, 1))
        assert one.tolist() == three[1:2].tolist()


@pytest.mark.parametrize("protocol", PUBLISHED)
def test_wanted_frames_are_the_distinct_ones_of_all_clips(protocol: str) -> None:
    plan = ViewPlan(protocol=protocol)
    for total in (1, 15, 60, 75, 299, 300, 1000):
        expected = sorted({int(i) for clip in plan.frame_indices(total) for i in clip})
        assert plan.wanted_frames(total).tolist() == expected
        assert 0 <= expected[0] <= expected[-1] < total


def test_resized_sizes_equal_the_published_formulas() -> None:
    for height, width in SIZES:
        floored = (int(224 * height / width), 224) if width < height else (224, int(224 * width / height))
        scale = 224 / min(height, width)
        rounded = (int(height * scale + 0.5), int(width * scale + 0.5))
        assert ViewPlan().resized_size(height, width) == floored
        assert ViewPlan(protocol="mmaction").resized_size(height, width) == rounded


def test_the_resize_is_skipped_where_the_short_side_is_right_already() -> None:
    for protocol in PUBLISHED:
        assert ViewPlan(protocol=protocol).resized_size(224, 399) == (224, 399)
        assert ViewPlan(protocol=protocol).resized_size(399, 224) == (399, 224)
    assert resized_size(97, 163, None) == (97, 163)


@pytest.mark.parametrize("num_crops", [2, 3, 5])
def test_videomae_crops_equal_the_published_formula(num_crops: int) -> None:
    plan = ViewPlan(num_crops=num_crops)
    for long in range(224, 600):
        step = 1.0 * (long - 224) / (num_crops - 1)
        along = [int(k * step) for k in range(num_crops)]
        assert plan.crop_offsets(224, long) == [(0, a) for a in along]
        assert plan.crop_offsets(long, 224) == [(a, 0) for a in along]


def test_mmaction_crops_are_left_right_middle() -> None:
    plan = ViewPlan(protocol="mmaction")
    for long in range(224, 600):
        step = (long - 224) // 2
        assert plan.crop_offsets(224, long) == [(0, 0), (0, 2 * step), (0, step)]
        assert plan.crop_offsets(long, 224) == [(0, 0), (2 * step, 0), (step, 0)]


@pytest.mark.parametrize("protocol", PUBLISHED)
@pytest.mark.parametrize("num_crops", [1, 2, 3, 4])
@pytest.mark.parametrize("crop_size", [111, 224])
@pytest.mark.parametrize(("height", "width"), [(224, 299), (299, 224), (224, 224)])
def test_any_crop_lies_inside_and_is_centred_across(
    protocol: str, num_crops: int, crop_size: int, height: int, width: int
) -> None:
    offsets = ViewPlan(num_crops=num_crops, crop_size=crop_size, protocol=protocol).crop_offsets(height, width)
    assert len(offsets) == num_crops
    for top, left in offsets:
        assert 0 <= top <= height - crop_size
        assert 0 <= left <= width - crop_size
        assert (left if height >= width else top) == (224 - crop_size) // 2
    if num_crops == 1:
        assert offsets == [((height - crop_size) // 2, (width - crop_size) // 2)]


@pytest.mark.parametrize("name", ["num_frames", "frame_stride", "num_segments", "num_crops", "short_side", "crop_size"])
def test_a_field_that_is_no_whole_number_is_refused_by_name(name: str) -> None:
    for value in (0, -1, True, 1.0, math.nan, "4", None):
        with pytest.raises(ConfigError, match=rf"^{name} must be a whole number >= 1, got .*$"):
            ViewPlan(**{name: value})  # type: ignore[arg-type]


def test_other_impossible_plans_are_refused() -> None:
    with pytest.raises(ConfigError, match="crop_size must be at most short_side = 112, got 224"):
        ViewPlan(short_side=112)
    with pytest.raises(ConfigError, match="protocol must be one of videomae, mmaction, got 'mmaction2'"):
        ViewPlan(protocol="mmaction2")
    with pytest.raises(ConfigError, match="smaller than the crop of 224"):
        ViewPlan().crop_offsets(223, 400)
    with pytest.raises(ConfigError, match="num_frames_total must be"):
        ViewPlan().frame_indices(0)
    with pytest.raises(ConfigError, match="rounding must be one of floor, round"):
        resized_size(10, 20, 5, "ceil")


def test_numpy_whole_numbers_are_accepted() -> None:
    assert ViewPlan(num_segments=np.int64(2)).num_views == 6  # type: ignore[arg-type]
