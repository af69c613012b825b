"""Squeezing against its formula by loops, and the split it starts from."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidprune.tokens.select import split_index
from vidprune.tokens.squeeze import squeeze_tokens


def squeeze_by_loops(tokens: np.ndarray, kept: list[int], dropped: list[int]) -> tuple[np.ndarray, list[int]]:
    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    sums = {j: math.e * tokens[j] for j in kept}
    weights = dict.fromkeys(kept, math.e)
    hosts = []
    for i in dropped:
        j = max(kept, key=lambda j, i=i: cosine(tokens[i], tokens[j]))
        weight = math.exp(cosine(tokens[i], tokens[j]))
        sums[j], weights[j] = sums[j] + weight * tokens[i], weights[j] + weight
        hosts.append(kept.index(j))
    return np.stack([sums[j] / weights[j] for j in kept]), hosts


def test_the_worked_example() -> None:
    tokens = torch.tensor([[[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [1.0, 1.2]]])
    squeezed, move = squeeze_tokens(tokens, torch.tensor([[0, 1]]), torch.tensor([[2, 3]]))
    assert move.host.tolist() == [[0, 1]]
    torch.testing.assert_close(squeezed, torch.tensor([[[1.5, 0.0], [0.4423, 1.0885]]]), atol=1e-4, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 20), st.data())
def test_squeezing_equals_the_loops(num_tokens: int, data: st.DataObject) -> None:
    num_kept = data.draw(st.integers(1, num_tokens))
    seed = data.draw(st.integers(0, 99))
    generator = np.random.default_rng(seed)
    tokens = generator.normal(size=(2, num_tokens, 5))
    order = np.stack([generator.permutation(num_tokens) for _ in range(2)])
    kept, dropped = torch.from_numpy(order[:, :num_kept]), torch.from_numpy(order[:, num_kept:])
    squeezed, move = squeeze_tokens(torch.from_numpy(tokens), kept, dropped)
    for b in range(2):
        expected, hosts = squeeze_by_loops(tokens[b], kept[b].tolist(), dropped[b].tolist())
        assert move.host[b].tolist() == hosts
        np.testing.assert_allclose(squeezed[b].numpy(), expected, atol=1e-5)
        alone = sorted(set(range(num_kept)) - set(hosts))
        assert torch.equal(squeezed[b, alone], torch.from_numpy(tokens[b])[kept[b, alone]]), "bit for bit"
    everything = torch.from_numpy(tokens)
    assert (squeezed <= everything.amax(1, keepdim=True) + 1e-6).all(), "inside the convex hull"
    assert (squeezed >= everything.amin(1, keepdim=True) - 1e-6).all()


def test_a_guest_identical_to_its_host_leaves_it_as_it_is() -> None:
    tokens = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    tokens[0, 3] = tokens[0, 1]
    squeezed, _ = squeeze_tokens(tokens, torch.tensor([[0, 1, 2]]), torch.tensor([[3]]))
    torch.testing.assert_close(squeezed, tokens[:, :3])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_finite(dtype: torch.dtype) -> None:
    tokens = (torch.randn(2, 30, 8, generator=torch.Generator().manual_seed(0)) * 500).to(dtype)
    kept, dropped = split_index(torch.randn(2, 30), 4)
    squeezed, _ = squeeze_tokens(tokens, kept, dropped)
    assert squeezed.dtype == dtype
    assert squeezed.isfinite().all()
    zeros, _ = squeeze_tokens(torch.zeros_like(tokens), kept, dropped)
    assert not zeros.any()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_split_index_is_a_partition_by_score(values: list[int], data: st.DataObject) -> None:
    num_kept = data.draw(st.integers(1, len(values)))
    kept, dropped = split_index(torch.tensor([values], dtype=torch.float32), num_kept)
    ranked = sorted(range(len(values)), key=lambda i: (-values[i], i))
    assert kept[0].tolist() == sorted(ranked[:num_kept])
    assert dropped[0].tolist() == sorted(ranked[num_kept:])
