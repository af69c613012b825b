"""Attention rows on demand against the whole matrix, with and without a bias on the keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidprune.tokens.attention import AttentionInputs


def random_inputs(biased: bool, dtype: torch.dtype = torch.float32) -> AttentionInputs:
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = torch.randn(3, 2, 4, 9, 5, generator=generator).to(dtype).unbind(0)
    bias = torch.randn(2, 1, 1, 9, generator=generator).to(dtype) if biased else None
    return AttentionInputs(queries, keys, values, 0.7, bias)


def whole_matrix(seen: AttentionInputs) -> np.ndarray:
    """Attention [B, heads, N, N] in float64."""
    logits = np.einsum("bhid,bhjd->bhij", seen.queries.double().numpy(), seen.keys.double().numpy()) * seen.scale
    logits = logits + (0.0 if seen.bias is None else seen.bias.double().numpy())
    exponent = np.exp(logits - logits.max(-1, keepdims=True))
    return exponent / exponent.sum(-1, keepdims=True)


@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("prefix", [1, 2, 5])
def test_rows_equal_the_whole_matrix(prefix: int, biased: bool) -> None:
    seen = random_inputs(biased)
    attention = whole_matrix(seen)
    np.testing.assert_allclose(seen.class_attention(prefix), attention[:, :, 0].mean(1)[:, prefix:], atol=1e-6)
    received = attention[:, :, prefix:].mean((1, 2))[:, prefix:]
    np.testing.assert_allclose(seen.received_attention(prefix), received, atol=1e-6)
    own = np.einsum("bhii->bhi", attention).max(1)
    np.testing.assert_allclose(
        seen.regarded_attention(prefix), (own * attention.sum(2).max(1))[:, prefix:], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_scores_of_half_precision_inputs_are_single(dtype: torch.dtype) -> None:
    seen = random_inputs(True, dtype)
    attention = whole_matrix(seen)  # of the same rounded inputs
    scores = seen.received_attention(1)
    assert scores.dtype == torch.float32
    np.testing.assert_allclose(scores, attention[:, :, 1:].mean((1, 2))[:, 1:], atol=1e-6)


def test_scores_carry_no_gradient() -> None:
    seen = random_inputs(False)
    seen.queries.requires_grad_(True)
    assert not seen.class_attention(1).requires_grad
    assert not seen.received_attention(1).requires_grad
    assert not seen.regarded_attention(1).requires_grad
