"""STA against loops over slots, its counts on VideoMAE, and clips whose redundant tokens are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.hosts import make_host, pixels_for
from vidprune.errors import ConfigError
from vidprune.models import create_model
from vidprune.pruners.base import HostInfo
from vidprune.pruners.controls import Random
from vidprune.pruners.sta import STA, Site, kept_by_accumulation
from vidprune.pruning import prune
from vidprune.types import TokenGrid


def loops(features: np.ndarray, activation: np.ndarray, site: Site) -> list[int]:
    """One sample, one token at a time: features [K, C], activation [K]."""
    size, kept = site.slot_size, {}
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    order = list(range(site.slots))[:: -1 if site.backwards else 1]
    before, score = [], {}
    for slot in order:
        here = list(range(slot * size, (slot + 1) * size))
        if not before:
            even, odd = here[::2], here[1::2]
            likeness = {token: max(unit[token] @ unit[other] for other in odd) for token in even}
            gone = sorted(even, key=lambda token: -likeness[token])[: site.dropped]
            kept[slot] = [token for token in here if token not in gone]
            before, score = here, dict.fromkeys(here, 1.0)
            continue
        collected = dict.fromkeys(here, 0.0)
        for earlier in before:
            weights = np.exp([unit[token] @ unit[earlier] for token in here])
            for token, share in zip(here, weights / weights.sum(), strict=True):
                collected[token] += share * score[earlier]
        low, high = min(activation[here]), max(activation[here])
        sta = {token: collected[token] * (1 - (activation[token] - low) / (high - low)) for token in here}
        gone = sorted(here, key=lambda token: -sta[token])[: site.dropped]
        kept[slot] = [token for token in here if token not in gone]
        total = sum(collected[token] for token in kept[slot])
        before, score = kept[slot], {token: collected[token] / total for token in kept[slot]}
    return [token for slot in range(site.slots) for token in kept[slot]]


@pytest.mark.parametrize(
    "site", [Site(4, 6, 2, False), Site(4, 6, 2, True), Site(2, 9, 4, True), Site(1, 8, 3, False), Site(8, 4, 2, False)]
)
def test_equals_loops_over_slots_and_tokens(site: Site) -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(3, site.num_tokens, 5, generator=generator)
    activation = torch.rand(3, site.num_tokens, generator=generator)
    found = kept_by_accumulation(features, activation, site)
    assert found.shape == (3, site.num_left)
    for sample in range(3):
        expected = loops(features[sample].double().numpy(), activation[sample].double().numpy(), site)
        assert found[sample].tolist() == expected


def test_what_was_seen_before_goes_first_and_what_stands_out_stays() -> None:
    """Two slots of four: three tokens repeat the slot before, one is new."""
    old, new = torch.tensor([10.0, 0, 0]), torch.tensor([0, 10.0, 0])
    features = torch.stack([old, old, old, old, old, new, old, old])[None]
    flat = torch.tensor([[0.0, 0, 0, 1, 0, 0, 0, 1]])
    assert kept_by_accumulation(features, flat, Site(2, 4, 2, False))[0, 2:].tolist() == [5, 7]
    loud = torch.tensor([[0.0, 0, 0, 1, 9, 0, 0, 1]])  # the first repeats too, but is what the model looks at
    assert kept_by_accumulation(features, loud, Site(2, 4, 2, False))[0, 2:].tolist() == [4, 5]


def test_where_all_stand_out_alike_what_was_seen_before_decides_alone() -> None:
    features = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(1))
    found = kept_by_accumulation(features, torch.ones(1, 8), Site(2, 4, 1, False))
    unit = torch.nn.functional.normalize(features[0], dim=1)
    seen_before = (unit[4:] @ unit[:4].T).softmax(dim=0).sum(dim=1)
    gone = 4 + int(seen_before.argmax())
    assert gone != 7, "the last one goes where scores are no numbers"
    assert found[0, 3:].tolist() == [token for token in range(4, 8) if token != gone]


@pytest.mark.parametrize(
    ("num_pruned", "tokens"),
    [(16, (1440, 1376, 1344)), (64, (1056, 800, 672)), (96, (800, 416, 224)), (98, (784, 392, 196))],
)
def test_counts_on_videomae(num_pruned: int, tokens: tuple[int, ...]) -> None:
    with torch.device("meta"):
        host = create_model("videomae_base")
    pruned = prune(host, STA(num_pruned), self_check=False)
    assert pruned.mlp_token_counts() == tuple(count for count in tokens for _ in range(4))
    assert pruned.notes() == ()
    assert pruned.num_kept() == 1568


def test_each_slot_keeps_equally_many() -> None:
    host = make_host("VideoMAE", depth=6)  # sites at blocks 0, 2 and 4, 16 tokens in each of 4 time steps
    pruned = prune(host, STA(4))
    with torch.no_grad():
        _, trace = pruned.forward_with_trace(pixels_for(host, batch=3))
    assert pruned.mlp_token_counts() == (48, 48, 40, 40, 36, 36)
    halves = (trace.kept_index < 32).sum(dim=1)
    assert trace.kept_index.shape == (3, 36)
    assert (halves >= 12).all()  # 40 in halves of 20 before the last site, which takes 4 out of the whole
    assert len({tuple(row) for row in trace.kept_index.tolist()}) == 3


def test_more_than_half_of_a_slot_is_clamped_and_said() -> None:
    pruned = prune(make_host("VideoMAE", depth=6), STA(9))
    assert pruned.mlp_token_counts() == (32, 32, 16, 16, 8, 8)
    assert pruned.notes() == ("num_pruned is clamped to half of a slot's tokens in blocks 0, 2, 4",)


def test_a_host_of_two_blocks_has_two_sites() -> None:
    assert prune(make_host("VideoMAE", depth=2), STA(2)).mlp_token_counts() == (56, 54)  # slots of 4 and of 1


def test_errors_say_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"must be a whole number from 0, got 0\.5"):
        STA(0.5)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="multiple of 4, got 1; use ToMe or PaPr on images"):
        prune(make_host("class token"), STA(2))
    with pytest.raises(ConfigError, match="got 6"):
        STA(2).build(HostInfo(TokenGrid(6, 2, 2), 0, 12, 32, 4, False))
    with pytest.raises(ConfigError, match="64 in block 0, got 38; leave out the method before it"):
        prune(make_host("VideoMAE"), [Random(0.6), STA(2)])
