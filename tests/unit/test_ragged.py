"""Counts that differ from sample to sample: each sample's result is its own, on every host, at every place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.hosts import ALL_HOSTS, FEW_HOSTS, SMALL, make_host, pixels_for, randomised, run_by_hand
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.inference import run_batches
from vidprune.pruners.base import HostInfo, Pruner, RaggedBlockStep, RaggedStep
from vidprune.pruners.controls import Random
from vidprune.pruners.evit import EViT
from vidprune.pruners.star import AdaptiveSTAR
from vidprune.pruners.tome import ToMe
from vidprune.pruning import PrunedViT, prune
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.packed import PackedState, pack
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid, VideoPrediction

ensure_torchvision()
from timm.models.vision_transformer import ParallelScalingBlock, VisionTransformer  # noqa: E402


def bright(pixels: Tensor, num_tokens: int) -> Tensor:
    """bool [B, N]: a different number of marks per sample, drawn from its own pixels."""
    seeds = (pixels.flatten(1).double().sum(dim=1) * 1e6).long().abs()
    marks = []
    for seed in seeds.tolist():
        generator = torch.Generator().manual_seed(seed)
        share = 0.2 + 0.7 * torch.rand((), generator=generator)
        marks.append(torch.rand(num_tokens, generator=generator) < share)
        marks[-1][0] = True
    return torch.stack(marks)


class BeforeStep(RaggedStep):
    def forward(self, pixels: Tensor, state: TokenState) -> TokenState | PackedState:
        return pack(state, bright(pixels, state.tokens.shape[1] - state.num_prefix))


class InsideStep(RaggedBlockStep):
    """Keeps the keys that are longer than the sample's mean, from block 1 on."""

    def __init__(self, num_prefix: int) -> None:
        super().__init__()
        self.num_prefix = num_prefix

    def acts(self, block: int, num_tokens: int) -> bool:
        return block >= 1

    def keep(self, seen: AttentionInputs, block: int, place: Tensor) -> Tensor:
        assert seen.queries.shape[0] == 1
        assert seen.queries.shape[2] == self.num_prefix + len(place)
        return long_keys(seen.keys[0, :, self.num_prefix :])


def long_keys(keys: Tensor) -> Tensor:
    lengths = keys.float().norm(dim=(0, 2))
    return lengths >= lengths.mean()


@dataclass(frozen=True)
class Before(Pruner):
    name = "before"

    def build(self, host: HostInfo) -> BeforeStep:
        return BeforeStep()


@dataclass(frozen=True)
class Inside(Pruner):
    name = "inside"

    def build(self, host: HostInfo) -> InsideStep:
        return InsideStep(host.num_prefix)


CHAINS: dict[str, list[Pruner]] = {
    "before": [Before()],
    "inside": [Inside()],
    "before, then inside": [Before(), Inside()],
    "random, then inside": [Random(0.6), Inside()],
    "before, then adaptive star": [Before(), AdaptiveSTAR(0.5, alpha=1.0)],
    "before, then tome": [Before(), ToMe(2, start_block=1)],
    "before, then evit": [Before(), EViT(0.6)],
}
FEW_CHAINS = ("before", "inside", "before, then evit")


def run(pruned: PrunedViT, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return pruned(pixels)


@pytest.mark.parametrize(
    ("host_name", "chain_name"),
    [(host, chain) for host in ALL_HOSTS for chain in (CHAINS if host in FEW_HOSTS else FEW_CHAINS)],
)
def test_alone_in_any_batch_in_any_order(host_name: str, chain_name: str) -> None:
    pruned = prune(make_host(host_name), CHAINS[chain_name])
    pixels = pixels_for(pruned.host, batch=5)
    with torch.no_grad():
        together, trace = pruned.forward_with_trace(pixels)
    assert pruned.ragged
    assert len(set(trace.num_kept.tolist())) > 1, "counts must differ here"
    alone = torch.cat([run(pruned, pixels[b : b + 1]) for b in range(5)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    order = torch.tensor([3, 0, 4, 1, 2])
    torch.testing.assert_close(run(pruned, pixels[order]), together[order], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run(pruned, pixels[[2, 2, 0]]), together[[2, 2, 0]], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("host_name", ["class token", "no class token", "registers", "VideoMAE"])
def test_before_equals_masked_attention_over_all_tokens(host_name: str) -> None:
    """Running the kept tokens packed equals running all with only the kept ones as keys, read at their places."""
    host = make_host(host_name)
    pixels = pixels_for(host, batch=3)
    logits, trace = prune(host, Before()).forward_with_trace(pixels)
    prefix = host.num_prefix_tokens
    keep = bright(pixels, trace.grid.num_tokens)
    assert trace.num_kept.tolist() == keep.sum(dim=1).tolist()
    allowed = torch.cat((torch.ones(3, prefix, dtype=torch.bool), keep), dim=1)
    tokens = host._pos_embed(host.patch_embed(pixels))
    for block in host.blocks:
        tokens = block(tokens, attn_mask=allowed[:, None, None].expand(-1, 1, tokens.shape[1], -1))
    for b in range(3):
        assert trace.kept_index[b, : keep[b].sum()].tolist() == keep[b].nonzero()[:, 0].tolist()
        expected = host.forward_head(host.norm(tokens[b : b + 1, allowed[b]]))[0]
        torch.testing.assert_close(logits[b], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("host_name", ["class token", "no class token", "registers", "distilled", "VideoMAE"])
def test_inside_equals_the_loops(host_name: str) -> None:
    host = make_host(host_name).double()
    pixels = pixels_for(host, batch=3).double()
    prefix = host.num_prefix_tokens
    with torch.no_grad():
        logits, trace = prune(host, Inside()).forward_with_trace(pixels)
    for b in range(3):
        place = list(range(trace.grid.num_tokens))

        def between(block: int, x: Tensor, probs: Tensor, keys: Tensor, place: list[int] = place) -> Tensor:
            if block == 0:
                return x
            kept = long_keys(keys[:, prefix:]).nonzero()[:, 0].tolist()
            place[:] = [place[i] for i in kept]
            return torch.cat((x[:prefix], x[prefix:][kept]))

        with torch.no_grad():
            torch.testing.assert_close(logits[b], run_by_hand(host, pixels[b : b + 1], between))
        assert trace.kept_index[b, : len(place)].tolist() == place


def test_the_trace_says_what_each_sample_kept() -> None:
    pruned = prune(make_host("registers"), [Before(), Inside()])
    pixels = pixels_for(pruned.host, batch=4)
    with torch.no_grad():
        _, trace = pruned.forward_with_trace(pixels)
        alone = [pruned.forward_with_trace(pixels[b : b + 1])[1] for b in range(4)]
    assert trace.kept_index.shape == (4, trace.num_kept.max())
    for b, own in enumerate(alone):
        assert trace.kept_index[b].tolist() == own.kept_index[0].tolist() + [-1] * int((trace.kept_index[b] < 0).sum())
        assert torch.equal(trace.assignment[b], own.assignment[0])
        assert trace.plans[b][1:] == own.plans[0][1:], "block 0, where nothing acts, alone differs: it needs no parts"
        assert trace.plans[b][-1].mlp - 5 == own.num_kept.item()
        held = trace.assignment[b][trace.assignment[b] >= 0]
        assert sorted(held.tolist()) == list(range(int(trace.num_kept[b])))
    means = [sum(plan[block].attention for plan in trace.plans) / 4 for block in range(3)]
    assert trace.token_counts == tuple(round(mean) for mean in means)


def test_merged_sizes_are_padded_with_zeros() -> None:
    pruned = prune(make_host("class token"), [Before(), ToMe(2, start_block=1)])
    with torch.no_grad():
        _, trace = pruned.forward_with_trace(pixels_for(pruned.host, batch=4))
    for b, plan in enumerate(trace.plans):
        assert trace.sizes[b].sum() == plan[0].attention - 1, "merging loses no token"
        assert (trace.sizes[b] > 0).sum() == trace.num_kept[b]


def test_attention_pooling_sees_a_samples_own_tokens() -> None:
    host = randomised(VisionTransformer(**(SMALL | {"class_token": False, "global_pool": "map"})))
    pruned = prune(host, Before())
    pixels = pixels_for(host, batch=4)
    alone = torch.cat([run(pruned, pixels[b : b + 1]) for b in range(4)])
    torch.testing.assert_close(run(pruned, pixels), alone, atol=1e-5, rtol=1e-5)


def test_blocks_that_cannot_run_from_their_parts_run_sample_by_sample() -> None:
    host = randomised(VisionTransformer(**(SMALL | {"block_fn": ParallelScalingBlock})))
    pixels = pixels_for(host, batch=3)
    pruned = prune(host, Before())
    keep = bright(pixels, 16)
    expected = []
    with torch.no_grad():
        tokens = host._pos_embed(host.patch_embed(pixels))
        for b in range(3):
            own = torch.cat((tokens[b, :1], tokens[b, 1:][keep[b]]))[None]
            expected.append(host.forward_head(host.norm(host.blocks(own))))
    torch.testing.assert_close(run(pruned, pixels), torch.cat(expected), atol=1e-5, rtol=1e-5)
    with pytest.raises(UnsupportedModelError, match="ParallelScalingBlock"):
        prune(host, Inside())


def test_equal_counts_leave_the_state_rectangular_and_everything_kept_untouched() -> None:
    tokens = torch.randn(2, 5, 3)
    state = TokenState(tokens, TokenGrid(1, 2, 2), num_prefix=1)
    assert pack(state, torch.ones(2, 4, dtype=torch.bool)) is state
    equal = pack(state, torch.tensor([[1, 0, 0, 1], [0, 1, 1, 0]], dtype=torch.bool))
    assert isinstance(equal, TokenState)
    assert torch.equal(equal.tokens, torch.stack((tokens[0, [0, 1, 4]], tokens[1, [0, 2, 3]])))
    packed = pack(state, torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0]], dtype=torch.bool))
    assert isinstance(packed, PackedState)
    assert packed.counts == (3, 2)
    assert torch.equal(packed.tokens[0], torch.cat((tokens[0, [0, 1, 4]], tokens[1, [0, 2]])))


def test_refusals() -> None:
    state = TokenState(torch.randn(2, 5, 3), TokenGrid(1, 2, 2), num_prefix=1)
    with pytest.raises(ConfigError, match="at least one token of every sample"):
        pack(state, torch.tensor([[1, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool))
    merged = TokenState(state.tokens, state.grid, 1, sizes=torch.ones(2, 5))
    with pytest.raises(ConfigError, match="merges tokens"):
        pack(merged, torch.tensor([[1, 0, 0, 1], [1, 0, 0, 0]], dtype=torch.bool))


def test_views_of_several_batches_come_together_and_count_by_their_mean() -> None:
    pruned = prune(make_host("VideoMAE"), Before())
    pixels = pixels_for(pruned.host, batch=5)
    one = run_batches(pruned, [(pixels, None)])
    parts = run_batches(pruned, [(pixels[:1], None), (pixels[1:4], None), (pixels[4:], None)])
    torch.testing.assert_close(one.logits, parts.logits, atol=1e-5, rtol=1e-5)
    assert torch.equal(one.kept_index, parts.kept_index)
    counts = bright(pixels, 64).sum(dim=1)
    prediction = VideoPrediction("x.mp4", np.ones(7) / 7, one.logits.numpy(), one.kept_index.numpy(), 64)
    assert prediction.view_num_kept.tolist() == counts.tolist()
    assert prediction.num_kept == one.mean_kept() == round(counts.double().mean().item())
