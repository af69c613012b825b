"""What STAR needs beforehand: against loops, finite differences and the conservation of relevance."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.hosts import ALL_HOSTS, make_host, pixels_for
from vidprune.calibration import calibrate
from vidprune.calibration.averaging import score_batch
from vidprune.calibration.recording import recording
from vidprune.calibration.relevance import (
    add_rule,
    attention_relevance,
    block_relevance,
    head_relevance,
    linear_rule,
    product_rule,
)
from vidprune.calibration.scores import average_similarity, row_of_the_head, scores_to_the_end
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.pruners.star import STAR
from vidprune.pruning import host_info, prune

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)

PLAIN_HOSTS = ("class token", "no class token", "registers", "LayerScale", "average pool, class token", "VideoMAE")


# --- similarity


def test_similarity_golden() -> None:
    tokens = torch.tensor([[[1.0, 0], [0, 1], [1, 1]]])
    assert float(average_similarity(tokens)) == pytest.approx(0.471405, abs=1e-6)


def test_similarity_is_the_mean_over_pairs() -> None:
    tokens = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(0))
    for sample, found in zip(tokens.double().numpy(), average_similarity(tokens), strict=True):
        cosines = [
            np.dot(sample[i], sample[j]) / np.linalg.norm(sample[i]) / np.linalg.norm(sample[j])
            for i in range(9)
            for j in range(i + 1, 9)
        ]
        assert float(found) == pytest.approx(np.mean(cosines), abs=1e-9)


@pytest.mark.parametrize("host_name", ["class token", "VideoMAE"])
def test_similarity_is_of_what_each_block_puts_out(host_name: str) -> None:
    host = make_host(host_name)
    pixels = pixels_for(host)
    with torch.no_grad():
        tokens, outputs = host._pos_embed(host.patch_embed(pixels)), []
        for block in host.blocks:
            outputs.append(tokens := block(tokens))
    expected = [float(average_similarity(tokens).mean()) for tokens in outputs]
    assert calibrate(host, [pixels]).similarity == pytest.approx(expected, abs=1e-5)


# --- scores


def test_scores_to_the_end_are_the_product_of_later_blocks() -> None:
    generator = torch.Generator().manual_seed(0)
    gradients, weights = torch.randn(2, 3, 1, 4, 6, 6, generator=generator).double()  # 3 blocks, 4 heads, 6 tokens
    row = np.array([0.5, 0, 0.5, 0, 0, 0])
    layers = [
        np.eye(6) + np.maximum(gradients[block, 0].numpy() * weights[block, 0].numpy(), 0).mean(axis=0)
        for block in range(3)
    ]
    expected = [row @ layers[2] @ layers[1] @ layers[0], row @ layers[2] @ layers[1], row @ layers[2]]
    found = scores_to_the_end(list(gradients), list(weights), torch.from_numpy(row))
    np.testing.assert_allclose(found[:, 0].numpy(), np.stack(expected) - row, atol=1e-9)


@pytest.mark.parametrize("host_name", ["class token", "no class token", "distilled", "average pool, class token"])
def test_the_row_of_the_head_is_what_the_head_reads(host_name: str) -> None:
    """A head that is linear in what it reads: its output is the row's mixture of the tokens' own outputs."""
    host = make_host(host_name)
    host.fc_norm = nn.Identity()
    num_tokens = host.num_prefix_tokens + 16
    tokens = torch.randn(1, num_tokens, 32, generator=torch.Generator().manual_seed(0))
    row = row_of_the_head(host, num_tokens, torch.device("cpu"))
    assert float(row.sum()) == pytest.approx(1)
    with torch.no_grad():
        read = host.forward_head(tokens)
        blank = host.forward_head(torch.zeros_like(tokens))
        for index in range(num_tokens):  # a token with no share changes nothing
            changed = host.forward_head(tokens.index_fill(1, torch.tensor(index), 3.0))
            assert bool((changed - read).abs().max() > 1e-4) == bool(row[index] > 0)
    assert not torch.equal(blank, read)


def finite_difference(
    host: VisionTransformer, pixels: Tensor, target: int, block: int, place: tuple[int, ...]
) -> float:
    """Change of a class score per change of one attention weight of one block."""

    def nudged(step: float) -> float:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            output = output.clone()
            output[place] += step
            return output

        handle = host.blocks[block].attn.attn_drop.register_forward_hook(hook)
        try:
            with torch.no_grad():
                return float(host(pixels)[0, target])
        finally:
            handle.remove()

    return (nudged(1e-5) - nudged(-1e-5)) / 2e-5


def test_gradients_are_those_of_the_class_score() -> None:
    host = make_host("class token").double()
    for block in host.blocks:
        block.attn.fused_attn = False
    pixels = pixels_for(host, batch=1).double()
    with recording(host) as seen:
        logits = host(pixels)
    target = int(logits.argmax())
    gradients = torch.autograd.grad(logits[0, target], seen.attention)
    for block in range(3):
        for place in ((0, 0, 0, 3), (0, 2, 5, 7), (0, 3, 16, 0)):
            expected = finite_difference(host, pixels, target, block, place)
            assert float(gradients[block][place]) == pytest.approx(expected, abs=1e-7)
    one_class, _ = score_batch(host, pixels, "rollout", 1)
    by_hand = scores_to_the_end(gradients, seen.attention, row_of_the_head(host, 17, torch.device("cpu")))
    torch.testing.assert_close(one_class, by_hand.detach())


@pytest.mark.parametrize("method", ["rollout", "lrp"])
@pytest.mark.parametrize("host_name", PLAIN_HOSTS)
def test_inputs_weigh_the_same_in_any_batches(host_name: str, method: str) -> None:
    host = make_host(host_name).double()
    pixels = pixels_for(host, batch=4).double()
    together = calibrate(host, [pixels], method=method, num_classes=3)
    parts = calibrate(host, [pixels[:1], pixels[1:3], pixels[3:]], method=method, num_classes=3)
    np.testing.assert_allclose(together.inter, parts.inter, rtol=1e-5)
    np.testing.assert_allclose(together.similarity, parts.similarity, atol=1e-9)
    assert together.inter.shape == (3, host_info(host).grid.num_tokens)
    assert (together.method, together.num_inputs, together.num_classes) == (method, 4, 3)
    assert np.ptp(together.inter, axis=1).min() > 0


@pytest.mark.parametrize("host_name", ALL_HOSTS)
def test_every_host_can_be_calibrated_pruned_and_is_left_as_it_was(host_name: str) -> None:
    host = make_host(host_name)
    host.requires_grad_(False)
    pixels = pixels_for(host)
    fused = [block.attn.fused_attn for block in host.blocks]
    before = host(pixels)
    calibration = calibrate(host, [pixels], num_classes=99, name=host_name)
    assert calibration.num_classes == 7
    assert [block.attn.fused_attn for block in host.blocks] == fused
    assert not any(module._forward_hooks for module in host.modules())
    assert torch.equal(host(pixels), before)
    schedule = "auto" if calibration.similarity[-1] > calibration.similarity[0] else "linear"
    assert prune(host, STAR(0.5, calibration=calibration, schedule=schedule))(pixels).isfinite().all()


def test_the_host_is_left_as_it_was_after_an_error() -> None:
    host = make_host("class token")
    with pytest.raises(Exception, match="channels"):
        calibrate(host, [torch.zeros(1, 5, 32, 32)])
    assert all(block.attn.fused_attn for block in host.blocks)
    assert not any(module._forward_hooks for module in host.modules())


def test_your_own_scores_take_the_place_of_the_computed_ones() -> None:
    host = make_host("class token")
    mine = np.random.default_rng(0).uniform(0.1, 1, size=(3, 16))
    found = calibrate(host, [pixels_for(host)], inter=mine)
    assert (found.method, found.num_classes) == ("given", 0)
    np.testing.assert_allclose(found.inter, mine, rtol=1e-6)
    assert found.similarity == pytest.approx(calibrate(host, [pixels_for(host)]).similarity, abs=1e-6)
    with pytest.raises(ConfigError, match=r"inter must be \[L, N\]"):
        calibrate(host, [pixels_for(host)], inter=mine[:, :9])


# --- relevance


def test_linear_rule_is_the_share_of_positive_contributions() -> None:
    rng = np.random.default_rng(0)
    weight, inputs, relevance = rng.standard_normal((3, 4)), rng.standard_normal(4), rng.standard_normal(3)
    expected = np.zeros(4)
    for output in range(3):
        positive = [i for i in range(4) if weight[output, i] * inputs[i] >= 0]
        total = sum(weight[output, i] * inputs[i] for i in positive)
        for i in positive:
            expected[i] += weight[output, i] * inputs[i] / total * relevance[output]
    found = linear_rule(*(torch.from_numpy(value) for value in (weight, inputs, relevance)))
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-12)


def test_product_rule_gives_each_factor_half_of_its_share() -> None:
    rng = np.random.default_rng(0)
    left, right, relevance = rng.uniform(1, 2, (2, 3)), rng.uniform(1, 2, (3, 4)), rng.standard_normal((2, 4))
    of_left, of_right = np.zeros((2, 3)), np.zeros((3, 4))
    for i in range(2):
        for j in range(4):
            for k in range(3):
                share = left[i, k] * right[k, j] / (left[i] @ right[:, j]) * relevance[i, j]
                of_left[i, k] += share / 2
                of_right[k, j] += share / 2
    found = product_rule(*(torch.from_numpy(value) for value in (left, right, relevance)))
    np.testing.assert_allclose(found[0].numpy(), of_left, atol=1e-12)
    np.testing.assert_allclose(found[1].numpy(), of_right, atol=1e-12)


def test_add_rule_splits_by_magnitude_and_keeps_the_total_of_each_sample() -> None:
    generator = torch.Generator().manual_seed(0)
    left, right, relevance = torch.randn(3, 2, 4, 5, generator=generator).double()
    parts = add_rule(left, right, relevance)
    torch.testing.assert_close(sum(part.sum((1, 2)) for part in parts), relevance.sum((1, 2)))
    raw = [(side * relevance / (left + right)).sum((1, 2)) for side in (left, right)]
    expected = relevance.sum((1, 2)) * raw[0].abs() / (raw[0].abs() + raw[1].abs())
    torch.testing.assert_close(parts[0].sum((1, 2)), expected)
    ratio = parts[0] / (left * relevance / (left + right))  # one factor per sample
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))


@pytest.mark.parametrize("host_name", PLAIN_HOSTS)
def test_relevance_is_conserved_through_every_block(host_name: str) -> None:
    host = make_host(host_name)
    with recording(host) as seen:
        host(pixels_for(host, batch=3))
    classes = torch.tensor([0, 3, 6])
    relevance = head_relevance(host, seen, classes)
    ones = torch.ones(3, dtype=torch.float64)
    torch.testing.assert_close(relevance.sum((1, 2)), ones)
    for block, recorded in zip(reversed(list(host.blocks)), reversed(seen.blocks), strict=True):
        relevance, attention = block_relevance(block, recorded, relevance)
        torch.testing.assert_close(relevance.sum((1, 2)), ones, atol=1e-6, rtol=0)
        assert attention.shape == recorded.outputs["attn.attn_drop"].shape
    assert len(attention_relevance(host, seen, classes)) == 3


# --- errors


def pooled_by_attention() -> VisionTransformer:
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=32, depth=2, num_heads=4, global_pool="map").eval()


ERRORS: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "training": (lambda: calibrate(make_host("class token").train(), []), ConfigError, r"call host.eval\(\) first"),
    "nothing": (lambda: calibrate(make_host("class token"), []), ConfigError, "at least one input, got none"),
    "method": (lambda: calibrate(make_host("class token"), [], method="ig"), ConfigError, "rollout, lrp, got 'ig'"),
    "classes": (lambda: calibrate(make_host("class token"), [], num_classes=0), ConfigError, "at least 1, got 0"),
    "qk-norm": (lambda: calibrate(make_host("qk-norm"), [], method="lrp"), UnsupportedModelError, "block 0 is not one"),
    "gate": (
        lambda: calibrate(make_host("gated attention"), [], method="lrp"),
        UnsupportedModelError,
        "use method 'rollout'",
    ),
    "distilled": (
        lambda: calibrate(make_host("distilled"), [], method="lrp"),
        UnsupportedModelError,
        "one linear head",
    ),
    "attention pooling": (
        lambda: calibrate(pooled_by_attention(), [torch.zeros(1, 3, 32, 32)]),
        UnsupportedModelError,
        "this host has attention pooling; give your own scores",
    ),
    "another model": (lambda: calibrate(nn.Linear(2, 2), []), UnsupportedModelError, "got Linear"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_say_what_to_do(name: str) -> None:
    call, kind, message = ERRORS[name]
    with pytest.raises(kind, match=message):
        call()
