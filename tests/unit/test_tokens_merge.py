"""Matching, merging and following tokens back, against loops written from the papers' sentences."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vidprune.tokens.merge import bipartite_match, max_merged, merge_mean, merge_mlerp
from vidprune.tokens.moves import Move, follow_moves


def reference_match(metric: np.ndarray, num_merged: int, num_prefix: int) -> tuple[list[int], dict[int, int]]:
    """(order of the tokens that stay, merged token -> the one it joins), over the whole sequence with its prefix.

    `metric` is [N, C], prefix rows included: even positions are A, odd ones B; prefix tokens are in no pair.
    """
    unit = metric / np.linalg.norm(metric, axis=1, keepdims=True)
    set_a = [i for i in range(num_prefix, len(metric)) if i % 2 == 0]
    set_b = [j for j in range(num_prefix, len(metric)) if j % 2 == 1]
    best = {i: max(set_b, key=lambda j, i=i: (unit[i] @ unit[j], -j)) for i in set_a}
    ranked = sorted(best, key=lambda i: (-(unit[i] @ unit[best[i]]), i))
    joins = {i: best[i] for i in ranked[:num_merged]}
    return [i for i in set_a if i not in joins] + set_b, joins


def random_tokens(batch: int, count: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 5), st.integers(2, 21), st.data())
def test_matching_and_mean_equal_the_loops(num_prefix: int, num_tokens: int, data: st.DataObject) -> None:
    num_merged = data.draw(st.integers(0, max_merged(num_tokens)))
    metric = random_tokens(2, num_prefix + num_tokens, seed=data.draw(st.integers(0, 99)))
    tokens = random_tokens(2, num_tokens, width=3, seed=7)
    sizes = torch.arange(1, 2 * num_tokens + 1, dtype=torch.float32).view(2, -1)
    move = bipartite_match(metric[:, num_prefix:], num_merged, num_prefix)
    merged, new_sizes = merge_mean(tokens, sizes, move)
    assert merged.shape == (2, num_tokens - num_merged, 3)
    for b in range(2):
        order, joins = reference_match(metric[b].numpy(), num_merged, num_prefix)
        assert (move.kept[b] + num_prefix).tolist() == order
        for row, stays in enumerate(order):
            members = [stays - num_prefix] + [i - num_prefix for i, j in joins.items() if j == stays]
            weights = sizes[b, members].double()
            expected = (tokens[b, members] * weights[:, None]).sum(0) / weights.sum()
            torch.testing.assert_close(merged[b, row], expected, atol=1e-5, rtol=1e-5)
            assert new_sizes[b, row] == weights.sum()


def test_merging_preserves_the_weighted_sum() -> None:
    tokens, sizes = random_tokens(3, 20), torch.rand(3, 20) + 0.5
    merged, new_sizes = merge_mean(tokens, sizes, bipartite_match(tokens, 8))
    torch.testing.assert_close(
        (merged * new_sizes[..., None]).sum(1), (tokens * sizes[..., None]).sum(1), atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(new_sizes.sum(1), sizes.sum(1))


def test_planted_duplicates_merge_first() -> None:
    tokens = random_tokens(1, 16)
    tokens[0, 9] = tokens[0, 4]
    move = bipartite_match(tokens, 1)
    assert move.joined is not None
    assert move.joined.tolist() == [[4]]
    assert move.kept[0, move.host[0, 0]] == 9


def test_ties_go_to_the_lower_position() -> None:
    move = bipartite_match(torch.ones(1, 10, 4), 2)
    assert move.joined.tolist() == [[0, 2]]
    assert move.kept.tolist() == [[4, 6, 8, 1, 3, 5, 7, 9]]
    assert move.host.tolist() == [[3, 3]], "both join position 1"


@pytest.mark.parametrize(("num_tokens", "num_prefix", "left"), [(5, 1, 3), (6, 1, 4), (197, 1, 99)])
def test_at_most_half_is_merged(num_tokens: int, num_prefix: int, left: int) -> None:
    assert num_tokens - max_merged(num_tokens - num_prefix) == left


def test_mlerp_has_the_largest_norm_and_the_mean_direction() -> None:
    tokens, sizes = random_tokens(2, 14), torch.ones(2, 14)
    move = bipartite_match(tokens, 6)
    merged, new_sizes = merge_mlerp(tokens, sizes, move)
    assert new_sizes.sum(1).tolist() == [14, 14]
    for b in range(2):
        for row, own in enumerate(move.kept[b].tolist()):
            guests = [i for i, h in zip(move.joined[b].tolist(), move.host[b].tolist(), strict=True) if h == row]
            members = tokens[b, [own, *guests]].numpy()
            if not guests:
                assert torch.equal(merged[b, row], tokens[b, own])
                continue
            mean = members.mean(0)
            expected = mean / np.linalg.norm(mean) * np.linalg.norm(members, axis=1).max()
            np.testing.assert_allclose(merged[b, row].numpy(), expected, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000))
def test_following_moves_equals_tracking_sets(seed: int) -> None:
    generator = np.random.default_rng(seed)
    members = [{i} for i in range(17)]  # what each current token holds
    places = list(range(17))
    moves = []
    for _ in range(3):
        order = generator.permutation(len(members))
        num_kept = int(generator.integers(1, len(members) + 1))
        kept, gone = order[:num_kept], order[num_kept:]
        joined = gone[: int(generator.integers(0, len(gone) + 1))]
        host = generator.integers(0, num_kept, len(joined))
        moves.append(Move(*(torch.from_numpy(array)[None] for array in (kept, joined, host))))
        new_members = [set(members[k]) for k in kept]
        for old, new in zip(joined, host, strict=True):
            new_members[new] |= members[old]
        members, places = new_members, [places[k] for k in kept]
    place, assignment = follow_moves(moves, 1, 17, torch.device("cpu"))
    assert place[0].tolist() == places
    expected = [next((row for row, held in enumerate(members) if i in held), -1) for i in range(17)]
    assert assignment[0].tolist() == expected


@pytest.mark.parametrize("merge", [merge_mean, merge_mlerp])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_merges_like_single(dtype: torch.dtype, merge: Callable) -> None:
    tokens = (random_tokens(2, 40) * 100).to(dtype)
    sizes = torch.full((2, 40), 900.0)  # size times token leaves float16's range
    move, same = bipartite_match(tokens, 20), bipartite_match(tokens.float(), 20)
    assert torch.equal(move.kept, same.kept)
    assert torch.equal(move.host, same.host)
    merged, _ = merge(tokens, sizes, move)
    expected, _ = merge(tokens.float(), sizes, move)
    assert merged.dtype == dtype
    torch.testing.assert_close(merged, expected.to(dtype))


@pytest.mark.parametrize("merge", [merge_mean, merge_mlerp])
def test_where_nothing_joins_tokens_are_gathered(merge: Callable) -> None:
    tokens, sizes = random_tokens(1, 5), torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0]])
    merged, new_sizes = merge(tokens, sizes, Move(torch.tensor([[3, 0]])))
    torch.testing.assert_close(merged, tokens[:, [3, 0]], rtol=1e-6, atol=1e-6)
    assert new_sizes.tolist() == [[4.0, 1.0]]
