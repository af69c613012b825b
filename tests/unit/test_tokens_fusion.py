"""STAR's fused scores, and how many of them hold a share of the whole, against the paper's algebra."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from vidprune.tokens.fusion import fuse_scores
from vidprune.tokens.mass import mass_count


def test_fusion_golden() -> None:
    fused = fuse_scores(torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5]), 0.15)
    torch.testing.assert_close(fused, torch.tensor([0.237726, 0.310797, 0.451476]).double(), atol=1e-6, rtol=0)


def test_fusion_minimises_the_weighted_divergence() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        intra, inter = rng.dirichlet(np.ones(6), size=2)
        alpha = rng.uniform()

        def objective(p: np.ndarray, intra: np.ndarray = intra, inter: np.ndarray = inter, a: float = alpha) -> float:
            return float(np.sum(p * (np.log(p) - a * np.log(intra) - (1 - a) * np.log(inter))))

        best = fuse_scores(torch.from_numpy(intra), torch.from_numpy(inter), alpha).numpy()
        assert best.sum() == pytest.approx(1)
        for scale in (1e-3, 1e-1, 1.0):
            other = best * np.exp(scale * rng.standard_normal((50, 6)))
            assert all(objective(p / p.sum()) >= objective(best) - 1e-12 for p in other)


def test_fusion_at_its_ends_and_with_zeros() -> None:
    intra, inter = torch.rand(3, 5), torch.rand(3, 5)
    inter[:, 2] = 0
    torch.testing.assert_close(fuse_scores(intra, inter, 1.0), (intra / intra.sum(1, keepdim=True)).double())
    torch.testing.assert_close(fuse_scores(intra, inter, 0.0), (inter / inter.sum(1, keepdim=True)).double())
    torch.testing.assert_close(fuse_scores(7 * intra, inter / 9, 0.3), fuse_scores(intra, inter, 0.3))
    assert fuse_scores(intra, inter, 0.3)[:, 2].tolist() == [0, 0, 0]
    assert fuse_scores(torch.zeros(1, 4), inter[:1, :4], 0.5).tolist() == [[0, 0, 0, 0]]  # no NaN


def test_mass_count_golden() -> None:
    pmf = torch.tensor([[0.4, 0.3, 0.15, 0.1, 0.05]], dtype=torch.float64)
    assert [int(mass_count(pmf, p)) for p in (0.3, 0.4, 0.5, 0.7, 0.85, 0.99)] == [1, 1, 2, 2, 3, 5]


@example([0.0, 5e-324], 0.5)  # a sum below the least normal number
@given(st.lists(st.floats(0, 1), min_size=1, max_size=30).filter(any), st.floats(0.01, 1))
def test_mass_count_is_the_smallest_set_and_at_most_the_fixed_count(scores: list[float], share: float) -> None:
    count = int(mass_count(torch.tensor([scores], dtype=torch.float64), share))
    ordered = np.sort(np.array(scores))[::-1]
    reached = np.cumsum(ordered) / ordered.sum()
    assert 1 <= count <= np.ceil(share * len(scores) - 1e-9)
    assert share == 1 or reached[count - 1] >= share - 2e-9
    assert count == 1 or share == 1 or reached[count - 2] < share
    assert count <= int(mass_count(torch.tensor([scores], dtype=torch.float64), min(1.0, share + 0.1)))


def test_a_share_missed_by_rounding_alone_is_reached() -> None:
    tenths = torch.tensor([[0.7, 0.5, 0.3]], dtype=torch.float64)
    assert float(tenths[0, :2].sum() / tenths.sum()) < 0.8
    assert int(mass_count(tenths, 0.8)) == 2


def test_mass_count_of_flat_and_peaked_scores() -> None:
    for share in (0.1, 0.3, 0.55, 0.7, 0.999):
        for level in (1.0, 0.1):  # the second has no finite binary fraction: its sums are rounded
            assert int(mass_count(torch.full((1, 1000), level), share)) == int(np.ceil(round(share * 1000, 9)))
        assert int(mass_count(torch.eye(1, 50), share)) == 1
    assert int(mass_count(torch.zeros(1, 5), 0.5)) == 5, "no more than there are"
    rng = torch.Generator().manual_seed(0)
    assert (mass_count(torch.rand(500, 197, generator=rng), 1.0) == 197).all()  # no running sum that misses 1
