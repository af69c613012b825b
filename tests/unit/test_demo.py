"""The demo's own arithmetic: where the actor is, and what one row says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidprune.demo import ClipResult, Variant, actor_per_token, load_clips, summarise
from vidprune.errors import ConfigError
from vidprune.models.videomae import VideoMAE, VideoMAESpec
from vidprune.pruners.controls import Random
from vidprune.pruning import prune
from vidprune.video import ViewPlan

SPEC = VideoMAESpec(width=32, depth=1, num_heads=2, num_frames=4, image_size=32, tubelet=(2, 8, 8))
PLAN = ViewPlan(num_frames=4, frame_stride=2, num_segments=2, num_crops=3, short_side=32, crop_size=32)


def test_actor_per_token_equals_a_plain_loop() -> None:
    mask = np.random.default_rng(0).integers(0, 256, size=(12, 8, 11)).astype(np.uint8)  # of frames 32 x 44
    result = actor_per_token(mask, 12, (32, 44), PLAN, VideoMAE(SPEC, 3))
    assert result.shape == (6, 32)
    view = 0
    for numbers in PLAN.frame_indices(12):
        for top, left in PLAN.crop_offsets(32, 44):
            for token in range(32):
                t, h, w = token // 16, token // 4 % 4, token % 4
                expected = sum(
                    int(mask[numbers[f], (top + y) // 4, (left + x) // 4])
                    for f in range(2 * t, 2 * t + 2)
                    for y in range(8 * h, 8 * h + 8)
                    for x in range(8 * w, 8 * w + 8)
                )
                assert result[view, token] == expected
            view += 1


def test_a_mask_of_another_video_is_refused() -> None:
    with pytest.raises(ConfigError, match="the mask has 5 frames, the video 12"):
        actor_per_token(np.zeros((5, 8, 11), np.uint8), 12, (32, 44), PLAN, VideoMAE(SPEC, 3))


def test_a_row_sums_times_and_counts_what_was_right() -> None:
    host = VideoMAE(SPEC, 3).eval()
    variants = [Variant("dense", 1.0, host), Variant("random", 0.25, prune(host, Random(0.25)))]
    results = [
        [ClipResult("dense", 1.0, True, 1.0, 0.4, 0.0), ClipResult("random", 0.25, False, 0.2, 0.1, 0.01)],
        [ClipResult("dense", 1.0, True, 1.0, 0.2, 0.0), ClipResult("random", 0.25, True, 0.4, 0.1, 0.01)],
    ]
    dense, random = summarise(results, variants, num_views=6)
    assert (dense.top1, dense.speed_up, dense.num_kept) == (1.0, 1.0, 32)
    assert (random.top1, random.num_kept, random.num_clips) == (0.5, 8, 2)
    assert random.speed_up == pytest.approx(3.0)
    assert random.ms_per_view == pytest.approx(1e3 * 0.2 / 12)
    assert random.proposal_share == pytest.approx(0.1)
    assert random.actor_coverage == pytest.approx(0.3)
    assert random.top1_low < 0.5 < random.top1_high


def test_a_folder_that_is_no_rendered_set_is_refused(tmp_path) -> None:
    with pytest.raises(ConfigError, match="not a rendered demo set"):
        load_clips(tmp_path)


def test_shipped_clips_are_balanced_and_decode_to_the_masks_length() -> None:
    from vidprune.labels import class_names
    from vidprune.video import read_frames

    clips = load_clips()
    names = class_names("demo")
    counts = np.bincount([clip.label for clip in clips], minlength=len(names))
    assert len(clips) >= 80
    assert counts.max() - counts.min() <= 1
    for clip in clips[::20]:
        video = read_frames(clip.path, [0])
        assert video.num_frames_total == len(clip.mask)
        assert video.source_size == (112, 150)


def test_the_shipped_model_sees_the_actor_and_papr_keeps_it() -> None:
    """A few clips are enough to tell a working model from a broken one; figures come from tools/measure_demo.py."""
    from vidprune.demo import build_variants, evaluate_clips
    from vidprune.inference import plan_for

    torch.manual_seed(0)
    variants = build_variants(("papr", "random"), (0.3,))
    plan = plan_for(variants[0].model)
    rows = summarise(list(evaluate_clips(load_clips()[::8], variants, plan)), variants, plan.num_views)
    dense, papr, random = rows
    assert dense.top1 > 0.6
    assert papr.actor_coverage > 0.6 > 0.4 > random.actor_coverage
    assert papr.top1 > random.top1
