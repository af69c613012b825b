"""Counts that differ from sample to sample: each sample's result is its own, on every host, before and inside blocks."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from tests.hosts import ALL_HOSTS, FEW_HOSTS, make_host, pixels_for, run_by_hand
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError
from vidprune.pruners.base import HostInfo, Pruner, RaggedBlockStep, RaggedStep
from vidprune.pruners.controls import Random
from vidprune.pruners.evit import EViT
from vidprune.pruners.star import AdaptiveSTAR
from vidprune.pruners.tome import ToMe
from vidprune.pruning import PrunedViT, prune
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.packed import PackedState, pack
from vidprune.tokens.state import TokenState

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
    return (lengths >= lengths.mean()).nonzero()[:, 0]


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
each_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


def run(pruned: PrunedViT, pixels: Tensor) -> Tensor:
    with torch.no_grad():
        return pruned(pixels)


@each_chain
@pytest.mark.parametrize("host_name", ALL_HOSTS)
def test_alone_in_any_batch_in_any_order(chain: list[Pruner], host_name: str) -> None:
    pruned = prune(make_host(host_name), chain)
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
