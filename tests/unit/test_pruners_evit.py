"""EViT and eTPS: published counts and costs, whole models by loops, substitutes that are said, refusals."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from tests.hosts import make_host, pixels_for, run_by_hand
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError
from vidprune.profiling.flops import flops
from vidprune.pruners.controls import Uniform
from vidprune.pruners.etps import ETPS
from vidprune.pruners.evit import EViT
from vidprune.pruning import prune

ensure_torchvision()
import timm  # noqa: E402

KEPT_WITH_FUSION = {
    0.5: (98, 50, 26),
    0.6: (118, 72, 44),
    0.7: (138, 98, 70),
    0.8: (157, 127, 103),
    0.9: (177, 161, 146),
}
KEPT_ALONE = {0.5: (98, 49, 25), 0.6: (118, 71, 43), 0.7: (138, 97, 68), 0.8: (157, 126, 101), 0.9: (177, 160, 144)}


def meta_host(name: str) -> torch.nn.Module:
    with torch.device("meta"):
        return timm.create_model(name)


@pytest.mark.parametrize("keep_ratio", KEPT_ALONE)
def test_published_counts(keep_ratio: float) -> None:
    host = meta_host("deit_small_patch16_224")
    for config, kept, extra in (
        (EViT(keep_ratio), KEPT_WITH_FUSION, 2),  # class token and fused token
        (EViT(keep_ratio, fuse=False), KEPT_ALONE, 1),
        (ETPS(keep_ratio), KEPT_ALONE, 1),
    ):
        after = prune(host, config).mlp_token_counts()
        assert after[:3] == (197, 197, 197)
        assert tuple(after[site] - extra for site in (3, 6, 9)) == kept[keep_ratio]
        assert after[4:6] == (after[3],) * 2


@pytest.mark.parametrize(
    ("name", "keep_ratio", "gmacs"),
    [
        ("deit_small_patch16_224", 0.9, 4.02),
        ("deit_small_patch16_224", 0.8, 3.48),
        ("deit_small_patch16_224", 0.7, 3.03),
        ("deit_small_patch16_224", 0.6, 2.64),
        ("deit_small_patch16_224", 0.5, 2.31),
        ("deit_base_patch16_224", 0.7, 11.61),
    ],
)
def test_published_costs(name: str, keep_ratio: float, gmacs: float) -> None:
    assert flops(prune(meta_host(name), EViT(keep_ratio)), convention="fvcore").total_gmacs == pytest.approx(
        gmacs, rel=0.005
    )


def scores_by_hand(probs: Tensor, prefix: int, received: bool) -> Tensor:
    """[patches] from the attention [heads, N, N]."""
    return probs[:, prefix:].mean((0, 1))[prefix:] if received else probs[:, 0].mean(0)[prefix:]


@pytest.mark.parametrize("fuse", [True, False])
@pytest.mark.parametrize("host_name", ["class token", "no class token", "registers", "distilled", "VideoMAE"])
def test_evit_equals_the_loops(host_name: str, fuse: bool) -> None:
    host = make_host(host_name).double()
    prefix, received = host.num_prefix_tokens, not host.has_class_token

    def between(block: int, x: Tensor, probs: Tensor, keys: Tensor) -> Tensor:
        if block == 0:
            return x
        scores = scores_by_hand(probs, prefix, received)
        ranked = sorted(range(len(scores)), key=lambda i: -float(scores[i]))
        left = math.ceil(Fraction(6, 10) * len(scores))
        rows = [x[i] for i in range(prefix)] + [x[prefix + i] for i in ranked[:left]]
        if fuse:
            rows.append(sum(scores[i] * x[prefix + i] for i in ranked[left:]))
        return torch.stack(rows)

    pixels = pixels_for(host).double()
    with torch.no_grad():
        logits = prune(host, EViT(0.6, blocks=[1, 2], fuse=fuse))(pixels)
        expected = torch.stack([run_by_hand(host, sample[None], between) for sample in pixels])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("host_name", ["class token", "no class token", "distilled"])
def test_etps_equals_the_loops(host_name: str) -> None:
    host = make_host(host_name).double()
    prefix, received = host.num_prefix_tokens, not host.has_class_token

    def between(block: int, x: Tensor, probs: Tensor, keys: Tensor) -> Tensor:
        if block != 1:
            return x
        scores, patches = scores_by_hand(probs, prefix, received), x[prefix:]
        ranked = sorted(range(len(scores)), key=lambda i: -float(scores[i]))
        kept, dropped = ranked[:7], ranked[7:]  # ceil(.4 * 16)
        rows = []
        cosine = torch.nn.functional.cosine_similarity(patches[:, None], patches[None], dim=-1)
        hosts = {i: max(kept, key=lambda j, i=i: float(cosine[i, j])) for i in dropped}
        for j in kept:
            guests = [i for i in dropped if hosts[i] == j]
            weights = [math.e, *(math.exp(cosine[i, j]) for i in guests)]
            rows.append(sum(w * patches[i] for w, i in zip(weights, [j, *guests], strict=True)) / sum(weights))
        return torch.cat((x[:prefix], torch.stack(rows)))

    pixels = pixels_for(host).double()
    with torch.no_grad():
        logits = prune(host, ETPS(0.4, blocks=(1,)))(pixels)
        expected = torch.stack([run_by_hand(host, sample[None], between) for sample in pixels])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_the_fused_token_holds_every_dropped_token() -> None:
    pruned = prune(make_host("class token"), EViT(0.5, blocks=(0,)))
    _, trace = pruned.forward_with_trace(pixels_for(pruned.host))
    assert trace.kept_index.shape == (2, 9)
    assert (trace.assignment == 8).sum(1).tolist() == [8, 8]


def test_dropping_a_single_token_into_the_fused_one_is_still_a_step() -> None:
    """ceil(.9 * 10) = 9 and the fused token makes 10 again: the count stays, the tokens do not."""
    pruned = prune(make_host("class token"), [Uniform(0.6), EViT(0.9, blocks=(1,))])
    assert pruned.num_kept() == 10
    assert pruned.mlp_token_counts() == (11, 11, 11)
    pixels = pixels_for(pruned.host)
    with torch.no_grad():
        assert (pruned(pixels) - prune(pruned.host, Uniform(0.6))(pixels)).abs().max() > 1e-4


@pytest.mark.parametrize("config", [EViT(0.5), ETPS(0.5)])
def test_the_substitute_score_is_said(config: EViT) -> None:
    _, trace = prune(make_host("VideoMAE"), config).forward_with_trace(pixels_for(make_host("VideoMAE")))
    assert len(trace.notes) == 1
    assert trace.notes[0].startswith("tokens are scored by the mean attention that they receive")
    assert trace.notes[0].endswith("this host has no class token")
    assert prune(make_host("class token"), config).notes() == ()
    asked = prune(make_host("class token"), type(config)(0.5, score="received"))
    assert asked.notes()[0].endswith("as asked")


def test_permuting_patches_permutes_the_kept_set() -> None:
    host = make_host("class token")
    host.pos_embed.data.zero_()
    order = torch.randperm(16, generator=torch.Generator().manual_seed(3))
    pixels = pixels_for(host, batch=1)
    patches = pixels.view(1, 3, 4, 8, 4, 8).permute(0, 2, 4, 1, 3, 5).reshape(1, 16, 3, 8, 8)
    shuffled = patches[:, order].view(1, 4, 4, 3, 8, 8).permute(0, 3, 1, 4, 2, 5).reshape(1, 3, 32, 32)
    for config in (EViT(0.5, fuse=False), ETPS(0.5)):
        pruned = prune(host, config)
        with torch.no_grad():
            logits, trace = pruned.forward_with_trace(pixels)
            logits_shuffled, trace_shuffled = pruned.forward_with_trace(shuffled)
        assert sorted(order[trace_shuffled.kept_index[0]].tolist()) == trace.kept_index[0].tolist()
        torch.testing.assert_close(logits, logits_shuffled, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"keep_ratio": 0.0}, "keep_ratio"),
        ({"keep_ratio": 1.5}, "keep_ratio"),
        ({"keep_ratio": 0.5, "score": "cls"}, "score must be one of auto, class, received, got 'cls'"),
        ({"keep_ratio": 0.5, "blocks": (3, 1)}, "ascending"),
        ({"keep_ratio": 0.5, "blocks": (-1,)}, "ascending"),
        ({"keep_ratio": 0.5, "blocks": ()}, "ascending"),
        ({"keep_ratio": 0.5, "blocks": (1.5,)}, "ascending"),
    ],
)
def test_bad_values_are_refused(bad: dict[str, object], message: str) -> None:
    for config in (EViT, ETPS):
        with pytest.raises(ConfigError, match=message):
            config(**bad)


def test_values_that_do_not_fit_the_host_are_refused() -> None:
    with pytest.raises(ConfigError, match="block 9, this host has blocks 0 to 2"):
        prune(make_host("class token"), EViT(0.5, blocks=(1, 9)))
    with pytest.raises(ConfigError, match="evit with score='class' needs a class token"):
        prune(make_host("VideoMAE"), EViT(0.5, score="class"))
