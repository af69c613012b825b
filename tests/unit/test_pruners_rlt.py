"""RLT: which tubelets stay, by brute force; planted stills and motion; refusals."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from tests.hosts import make_host, pixels_for
from vidprune.errors import ConfigError
from vidprune.pruners.rlt import RLT, tubelet_change
from vidprune.pruning import prune
from vidprune.types import TokenGrid


def kept_by_hand(clip: np.ndarray, threshold: float, frames: str) -> list[int]:
    """Flat numbers of the tubelets of 2 frames of 16 x 16 pixels that stay, from one clip [3, T, H, W]."""
    t, h, w = clip.shape[1] // 2, clip.shape[2] // 16, clip.shape[3] // 16
    kept = []
    for i in range(t):
        for y in range(h):
            for x in range(w):
                place = (slice(16 * y, 16 * y + 16), slice(16 * x, 16 * x + 16))
                pairs = [(2 * i + 1, 2 * i - 2)] if frames == "ends" else [(2 * i, 2 * i - 2), (2 * i + 1, 2 * i - 1)]
                change = [np.abs(clip[:, a][:, *place] - clip[:, b][:, *place]).mean() for a, b in pairs if i]
                if not i or np.mean(change) > threshold:
                    kept.append((i * h + y) * w + x)
    return kept


@pytest.mark.parametrize("frames", ["ends", "all"])
@pytest.mark.parametrize("threshold", [1.1, 1.13])
def test_selection_equals_brute_force(frames: str, threshold: float) -> None:
    host = make_host("VideoMAE")
    pixels = pixels_for(host, batch=3)
    _, trace = prune(host, RLT(threshold, frames)).forward_with_trace(pixels)
    for b in range(3):
        expected = kept_by_hand(pixels[b].double().numpy(), threshold, frames)
        assert 16 < len(expected) < 64
        assert trace.kept_index[b, : trace.num_kept[b]].tolist() == expected


def test_a_still_keeps_its_first_tubelets_and_a_moving_square_its_path() -> None:
    still = torch.randn(3, 1, 64, 64, generator=torch.Generator().manual_seed(0)).expand(3, 8, 64, 64)
    moving = still.clone()
    moving[:, 4, 16:32, 32:48] += 3.0  # one frame of the third tubelet in time
    host = make_host("VideoMAE")
    _, trace = prune(host, RLT(frames="all")).forward_with_trace(torch.stack((still, moving)))
    assert trace.kept_index[0].tolist() == [*range(16), -1, -1]
    assert trace.kept_index[1].tolist() == [*range(16), 2 * 16 + 6, 3 * 16 + 6], "it comes, and it goes"
    _, ends = prune(host, RLT()).forward_with_trace(torch.stack((still, moving)))
    assert ends.kept_index[1].tolist() == [*range(16), 3 * 16 + 6], "the ends alone see its first frame, not its last"


def test_change_does_not_depend_on_precision_of_the_input_alone_and_has_the_grids_shape() -> None:
    clip = torch.randn(2, 3, 6, 8, 12, generator=torch.Generator().manual_seed(0)).bfloat16()
    change = tubelet_change(clip, TokenGrid(3, 2, 4), ends=True)
    assert change.shape == (2, 2, 2, 4)
    assert change.dtype == torch.float32
    assert torch.equal(change, tubelet_change(clip.float(), TokenGrid(3, 2, 4), ends=True))


def test_counts_fall_with_the_threshold_and_zero_drops_exact_repeats_alone() -> None:
    host = make_host("VideoMAE")
    pixels = pixels_for(host, batch=2)
    pixels[0, :, 2:4] = pixels[0, :, 0:1]
    counts = [prune(host, RLT(value)).forward_with_trace(pixels)[1].num_kept for value in (0.0, 1.1, 1.13, 1.2, 9.0)]
    assert counts[0].tolist() == [48, 64]
    assert all((a >= b).all() for a, b in itertools.pairwise(counts))
    assert counts[-1].tolist() == [16, 16]


@pytest.mark.parametrize("threshold", [-0.1, float("nan"), float("inf"), "0.1", True])
def test_bad_thresholds_are_refused(threshold: object) -> None:
    with pytest.raises(ConfigError, match="normalised pixel units"):
        RLT(threshold)  # type: ignore[arg-type]


def test_images_and_unknown_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match="one step in time"):
        prune(make_host("class token"), RLT())
    with pytest.raises(ConfigError, match="frames must be one of ends, all"):
        RLT(frames="first")
