"""The mass rule: the fewest tokens that hold a share of the map, by brute force; invariances, bounds, refusals."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.hosts import make_host, pixels_for
from vidprune.errors import ConfigError
from vidprune.proposals.base import Proposal
from vidprune.pruners.papr import PaPr
from vidprune.pruning import prune
from vidprune.tokens.mass import top_mass_mask
from vidprune.types import TokenGrid


class Given(Proposal):
    """Answers with what it was made with."""

    name = "given"

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        return self.answer

    def gmacs(self, clip_shape: tuple[int, int, int]) -> float:
        return 2.0


class NeverAsked(Given):
    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        raise AssertionError("the proposal ran")


def smallest_sets(scores: list[float], mass: float) -> tuple[int, list[set[int]]]:
    """The least size of a set whose share reaches `mass`, and all such sets that hold the most, of all subsets."""
    weights = [s - min(scores) for s in scores]
    if not any(weights):
        weights = [1.0] * len(scores)
    for size in range(1, len(scores) + 1):
        shares = {s: sum(weights[i] for i in s) for s in itertools.combinations(range(len(scores)), size)}
        best = max(shares.values())
        if best >= mass * sum(weights) - 1e-9 * sum(weights):
            return size, [set(s) for s, share in shares.items() if share >= best - 1e-12]
    raise AssertionError("unreachable")


@pytest.mark.parametrize("mass", [0.05, 0.3, 0.5, 0.6, 0.7, 0.95])
def test_no_smaller_set_holds_as_much(mass: float) -> None:
    for seed in range(6):
        scores = np.random.default_rng(seed).normal(size=9).round(seed % 3 + 1)
        mask = top_mass_mask(torch.from_numpy(scores)[None], mass)[0]
        size, sets = smallest_sets(scores.tolist(), mass)
        kept = set(mask.nonzero()[:, 0].tolist())
        assert len(kept) == size
        assert kept in sets


def test_equal_scores_hold_equal_shares_and_ties_keep_the_lower_index() -> None:
    for mass, count in ((0.1, 1), (0.3, 3), (0.57, 6), (0.7, 7), (1.0, 10)):
        assert top_mass_mask(torch.full((1, 10), -3.0), mass)[0].tolist() == [True] * count + [False] * (10 - count)
    assert top_mass_mask(torch.tensor([[0.0, 1.0, 1.0, 1.0]]), 0.5)[0].tolist() == [False, True, True, False]


def test_count_never_falls_with_mass_and_positive_affine_maps_change_nothing() -> None:
    scores = torch.randn(5, 60, generator=torch.Generator().manual_seed(0))
    masks = [top_mass_mask(scores, share / 50) for share in range(1, 51)]
    for less, more in itertools.pairwise(masks):
        assert (less <= more).all(), "what a smaller share keeps, a larger one keeps too"
    assert masks[-1].all()
    for share, mask in zip(range(1, 51), masks, strict=True):
        assert torch.equal(top_mass_mask(scores * 0.25 + 4.0, share / 50), mask)


def test_a_peak_is_a_small_set_and_a_plain_a_large_one() -> None:
    peak = torch.zeros(1, 100)
    peak[0, 37] = 1.0
    assert top_mass_mask(peak, 0.9)[0].nonzero().tolist() == [[37]]
    ramp = torch.arange(100.0)[None]
    assert top_mass_mask(ramp, 0.75).sum() == 50, "the upper half of a ramp holds three quarters"


def test_bounds_bind_and_the_best_stay() -> None:
    scores = torch.stack((torch.eye(20)[3], torch.arange(20.0)))
    mask = top_mass_mask(scores, 0.9, min_kept=4, max_kept=6)
    assert mask.sum(dim=1).tolist() == [4, 6]
    assert mask[0].nonzero()[:, 0].tolist() == [0, 1, 2, 3]
    assert mask[1].nonzero()[:, 0].tolist() == [14, 15, 16, 17, 18, 19]


def test_what_is_no_number_holds_nothing() -> None:
    nan, inf = float("nan"), float("inf")
    assert top_mass_mask(torch.tensor([[nan, 1.0, -inf, 3.0, 3.0]]), 0.9)[0].tolist() == [
        False,
        False,
        False,
        True,
        True,
    ]
    assert top_mass_mask(torch.tensor([[inf, 0.0, 1.0, 1.0]]), 0.3)[0].tolist() == [True, False, False, False]
    assert top_mass_mask(torch.tensor([[nan] * 4]), 0.5).sum() == 2
    assert top_mass_mask(torch.tensor([[1e30, -1e30, 3e38, 0.0]]), 0.9)[0].tolist() == [False, False, True, False]


@pytest.mark.parametrize("host_name", ["class token", "no class token", "registers", "VideoMAE"])
def test_each_view_gets_its_own_budget(host_name: str) -> None:
    host = make_host(host_name)
    pixels = pixels_for(host, batch=3)
    grid = (4, 4, 4) if host_name == "VideoMAE" else (1, 4, 4)
    maps = torch.randn(3, *grid, generator=torch.Generator().manual_seed(0))
    maps[1] = maps[1].exp() ** 3  # a peaked one
    pruned = prune(host, PaPr(mass=0.6, proposal=Given(maps)))
    with torch.no_grad():
        logits, trace = pruned.forward_with_trace(pixels)
    expected = top_mass_mask(maps.flatten(1), 0.6)
    assert trace.num_kept.tolist() == expected.sum(dim=1).tolist()
    assert trace.num_kept[1] < trace.num_kept[0]
    assert torch.equal(trace.proposal_map, maps)
    for b in range(3):
        kept = trace.kept_index[b, : trace.num_kept[b]]
        assert kept.tolist() == expected[b].nonzero()[:, 0].tolist()
        with torch.no_grad():  # the host on a sequence gathered beforehand
            tokens = host._pos_embed(host.patch_embed(pixels[b : b + 1]))
            rows = torch.cat((torch.arange(host.num_prefix_tokens), kept + host.num_prefix_tokens))
            alone = host.forward_head(host.norm(host.blocks(tokens[:, rows])))[0]
        torch.testing.assert_close(logits[b], alone, atol=1e-5, rtol=1e-5)


def test_a_given_map_takes_the_place_of_the_proposals_own() -> None:
    host = make_host("VideoMAE")
    maps = torch.rand(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    pruned = prune(host, PaPr(mass=0.5, proposal=NeverAsked(maps)))
    _, trace = pruned.forward_with_trace(pixels_for(host), maps)
    assert trace.num_kept.tolist() == top_mass_mask(maps.flatten(1), 0.5).sum(dim=1).tolist()


def test_all_the_mass_is_the_host_itself_and_asks_nobody() -> None:
    host = make_host("VideoMAE")
    pruned = prune(host, PaPr(mass=1.0, proposal=NeverAsked(torch.zeros(1))))
    assert not pruned.ragged
    with torch.no_grad():
        assert torch.equal(pruned(pixels_for(host)), host(pixels_for(host)))


def test_ratios_bound_the_counts_by_the_papers_rounding() -> None:
    host = make_host("class token")
    maps = torch.stack((torch.eye(16)[5].view(1, 4, 4), torch.ones(1, 4, 4), torch.rand(1, 4, 4)))
    pruned = prune(host, PaPr(mass=0.9, proposal=Given(maps), min_keep_ratio=0.3, max_keep_ratio=0.5))
    assert pruned.num_kept() == 8, "the most there can be: int(17 * 0.5)"
    _, trace = pruned.forward_with_trace(pixels_for(host, batch=3))
    assert trace.num_kept.tolist()[:2] == [5, 8]
    capped = prune(host, PaPr(mass=1.0, proposal=Given(maps), max_keep_ratio=0.5))
    assert capped.forward_with_trace(pixels_for(host, batch=3))[1].num_kept.tolist() == [8, 8, 8]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "either keep_ratio"),
        ({"keep_ratio": 0.5, "mass": 0.5}, "either keep_ratio"),
        ({"mass": 0.0}, "mass must be"),
        ({"mass": float("nan")}, "mass must be"),
        ({"mass": 0.5, "min_keep_ratio": 0.0}, "min_keep_ratio must be"),
        ({"mass": 0.5, "max_keep_ratio": 1.5}, "max_keep_ratio must be"),
        ({"mass": 0.5, "min_keep_ratio": 0.6, "max_keep_ratio": 0.3}, "is above max_keep_ratio"),
        ({"keep_ratio": 0.5, "max_keep_ratio": 0.6}, "go with mass"),
    ],
)
def test_refusals(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        PaPr(**options)
