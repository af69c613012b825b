"""Token maths against brute force."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidprune.errors import ConfigError
from vidprune.tokens.reduce import gather_tokens
from vidprune.tokens.resize import map_to_scores, maps_of_frames
from vidprune.tokens.rounding import ceil_count, check_ratio, floor_count, round_count
from vidprune.tokens.select import keep_mask, top_k_index
from vidprune.types import TokenGrid

PUBLISHED_COUNTS = {  # PaPr's n = 197 with the class token, and 1568 tubelets
    197: {0.3: 59, 0.35: 68, 0.4: 78, 0.45: 88, 0.5: 98, 0.55: 108, 0.6: 118, 0.65: 128, 0.7: 137, 0.9: 177, 0.99: 195},
    1568: {0.3: 470, 0.35: 548, 0.4: 627, 0.45: 705, 0.5: 784, 0.55: 862, 0.7: 1097},
}


@pytest.mark.parametrize("total", sorted(PUBLISHED_COUNTS))
def test_floor_count_gives_the_published_counts(total: int) -> None:
    assert {z: floor_count(total, z) for z in PUBLISHED_COUNTS[total]} == PUBLISHED_COUNTS[total]


@given(st.integers(1, 5000), st.integers(1, 1000))
def test_counts_equal_exact_rational_arithmetic(total: int, thousandths: int) -> None:
    exact = Fraction(thousandths, 1000) * total
    assert floor_count(total, thousandths / 1000) == max(1, math.floor(exact))
    assert ceil_count(total, thousandths / 1000) == max(1, math.ceil(exact))
    assert round_count(total, thousandths / 1000) == max(1, round(exact)), "halves to the even one"


def test_counts_where_binary_floats_surprise() -> None:
    assert int(0.29 * 100) == 28, "the surprise this guards against"
    assert floor_count(100, 0.29) == 29
    assert floor_count(100, 0.57) == 57
    assert ceil_count(100, 0.55) == 55
    assert ceil_count(100, 0.07) == 7
    assert floor_count(6, 1 / 3) == 2
    assert ceil_count(6, 5 / 6) == 5
    assert floor_count(1568, 1e-6) == ceil_count(5, 1e-12) == 1, "one token always stays"


@pytest.mark.parametrize("ratio", [0, -0.1, 1.0001, float("nan"), float("inf"), True, "0.5", None])
def test_check_ratio_refuses(ratio: object) -> None:
    with pytest.raises(ConfigError, match=r"keep_ratio must be a number in \(0, 1\]"):
        check_ratio("keep_ratio", ratio)


@settings(max_examples=60)
@given(st.integers(1, 4), st.integers(1, 40), st.data())
def test_top_k_equals_python_sort(batch: int, num_tokens: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(-3, 3), min_size=batch * num_tokens, max_size=batch * num_tokens))
    num_kept = data.draw(st.integers(1, num_tokens))
    scores = torch.tensor(values, dtype=torch.float32).view(batch, num_tokens)  # few values: many ties
    expected = [
        sorted(sorted(range(num_tokens), key=lambda i, row=row: (-row[i], i))[:num_kept]) for row in scores.tolist()
    ]
    assert top_k_index(scores, num_kept).tolist() == expected


def test_top_k_never_keeps_nan_before_a_number() -> None:
    scores = torch.tensor([[float("nan"), -5.0, float("nan"), 1.0, float("-inf")]])
    assert top_k_index(scores, 2).tolist() == [[1, 3]]
    assert top_k_index(scores, 3).tolist() == [[1, 3, 4]], "minus infinity is a number"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_top_k_in_every_dtype(dtype: torch.dtype) -> None:
    scores = torch.arange(32, dtype=torch.float32).flip(0)[None].to(dtype)
    assert top_k_index(scores, 4).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("num_prefix", [0, 1, 5])
def test_gather_tokens_equals_numpy_and_round_trips(num_prefix: int) -> None:
    generator = np.random.default_rng(0)
    tokens = torch.from_numpy(generator.normal(size=(3, num_prefix + 20, 6)))
    kept = torch.from_numpy(np.stack([np.sort(generator.permutation(20)[:7]) for _ in range(3)]))
    gathered = gather_tokens(tokens, kept, num_prefix)
    for b in range(3):
        rows = [*range(num_prefix), *(kept[b].numpy() + num_prefix)]
        np.testing.assert_array_equal(gathered[b].numpy(), tokens[b].numpy()[rows])
    mask = keep_mask(kept, 20)
    assert mask.sum(1).tolist() == [7, 7, 7]
    assert torch.equal(mask.nonzero()[:, 1].view(3, 7), kept)
    assert keep_mask(torch.tensor([[0, 2], [1, -1]]), 3).tolist() == [[True, False, True], [False, True, False]]


def _axis_weights(size_in: int, size_out: int, align_corners: bool) -> np.ndarray:
    weights = np.zeros((size_out, size_in))
    for o in range(size_out):
        if align_corners:
            position = o * (size_in - 1) / (size_out - 1) if size_out > 1 else 0.0
        else:
            position = max((o + 0.5) * size_in / size_out - 0.5, 0.0)
        low = min(int(position), size_in - 1)
        high = min(low + 1, size_in - 1)
        weights[o, low] += 1 - (position - low)
        weights[o, high] += position - low
    return weights


@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize(
    ("shape", "steps"), [((8, 5, 5), 8), ((16, 7, 7), 8), ((4, 9, 6), 8), ((1, 7, 7), 8), ((4, 9, 6), 1)]
)
def test_map_to_scores_equals_separable_linear_interpolation(
    shape: tuple[int, int, int], steps: int, align_corners: bool
) -> None:
    grid = TokenGrid(steps, 14, 14)
    proposal_map = np.random.default_rng(1).normal(size=(2, *shape))
    t, h, w = (_axis_weights(i, o, align_corners) for i, o in zip(shape, grid.shape, strict=True))
    expected = np.einsum("ta,hb,wc,nabc->nthw", t, h, w, proposal_map).reshape(2, -1)
    scores = map_to_scores(torch.from_numpy(proposal_map), grid, align_corners)
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-5)


def test_map_to_scores_of_an_image_is_bicubic_and_hits_the_corners() -> None:
    proposal_map = torch.randn(1, 1, 7, 7)
    scores = map_to_scores(proposal_map, TokenGrid(1, 14, 14)).view(14, 14)
    assert torch.allclose(scores[[0, 0, -1, -1], [0, -1, 0, -1]], proposal_map[0, 0][[0, 0, -1, -1], [0, -1, 0, -1]])
    linear = torch.nn.functional.interpolate(proposal_map, size=(14, 14), mode="bilinear", align_corners=True)
    assert not torch.allclose(scores, linear[0, 0])


def test_map_already_on_the_token_grid_is_taken_as_it_is() -> None:
    proposal_map = torch.randn(2, 4, 7, 7)
    assert torch.equal(map_to_scores(proposal_map, TokenGrid(4, 7, 7)), proposal_map.flatten(1))


def test_maps_of_frames_are_linear_in_time_and_otherwise_untouched() -> None:
    clips = np.random.default_rng(2).normal(size=(2, 3, 4, 5))
    frames = maps_of_frames(torch.from_numpy(clips), 6)
    expected = np.einsum("fa,nahw->nfhw", _axis_weights(3, 6, align_corners=True), clips).reshape(12, 1, 4, 5)
    np.testing.assert_allclose(frames.numpy(), expected, atol=1e-6)
    assert torch.equal(maps_of_frames(torch.from_numpy(clips), 3), torch.from_numpy(clips).reshape(6, 1, 4, 5))


def test_a_planted_hot_cell_keeps_its_own_tokens() -> None:
    proposal_map = torch.zeros(1, 4, 7, 7)
    proposal_map[0, 2, 5, 1] = 1.0
    grid = TokenGrid(8, 14, 14)
    scores = map_to_scores(proposal_map, grid)
    # With aligned corners, cell 5 of 7 is at 5 * 13 / 6 = 10.8 of 14, cell 1 at 2.2; slot 2 of 4 at 2 * 7 / 3 = 4.7.
    assert np.unravel_index(top_k_index(scores, 1).item(), grid.shape) == (5, 11, 2)
    t, h, w = np.unravel_index(top_k_index(scores, 8)[0].numpy(), grid.shape)
    assert (abs(t - 4.67) < 7 / 3).all(), "within one proposal cell"
    assert (abs(h - 10.83) < 13 / 6).all()
    assert (abs(w - 2.17) < 13 / 6).all()
