"""The two measures of STAR, as functions of what was recorded.

Sources: Zhang et al., STAR, ICLR 2024, Eq. 5 (average cosine similarity), Eq. 9 and Algorithm 2 (scores to the end);
Chefer et al., "Generic Attention-model Explainability for Interpreting Bi-Modal and Encoder-Decoder Transformers",
ICCV 2021, for gradient times attention without relevance.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from vidprune.compat import ensure_torchvision
from vidprune.errors import UnsupportedModelError

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)


def average_similarity(tokens: Tensor) -> Tensor:
    """Mean cosine over all pairs of different tokens (STAR, Eq. 5), float64 [B].

    Args:
        tokens: [B, n, D], n > 1, prefix tokens included.
    """
    num_tokens = tokens.shape[1]
    units = F.normalize(tokens.detach().double(), dim=-1)
    # The sum over all pairs is the square of the summed unit vectors, the n pairs of a token with itself included.
    own = units.square().sum(dim=(1, 2))
    return (units.sum(dim=1).square().sum(dim=-1) - own) / (num_tokens * (num_tokens - 1))


def scores_to_the_end(gradients: Sequence[Tensor], weights: Sequence[Tensor], row: Tensor) -> Tensor:
    """How much each token that enters block l matters to what the head reads, float64 [L, B, P + N].

    The row of A_L ... A_l that the head reads, with A_l = I + mean over heads of relu(gradient * weight) (STAR, Eq. 9).
    Row i of A_l says what output token i takes from each input token, so later blocks multiply from the left. What a
    token holds of itself without any attention, the row times I ... I, is left out. That changes nothing for patches
    where the head reads a class token; where it reads a mean, it is the same for all and would drown the rest.

    Args:
        gradients: of the class score with respect to the attention of each block, [B, heads, P + N, P + N].
        weights: the attention itself (rollout) or its relevance (LRP), in the same shape.
        row: [P + N], the share of each token that leaves the last block in what the head reads.
    """
    start = row.double().expand(gradients[0].shape[0], -1)  # [B, P + N]
    row, rows = start, []
    for gradient, weight in zip(reversed(gradients), reversed(weights), strict=True):
        influence = (gradient.double() * weight.double()).clamp(min=0).mean(dim=1)  # [B, P + N, P + N]
        row = row + (row.unsqueeze(1) @ influence).squeeze(1)
        rows.append(row - start)
    return torch.stack(rows[::-1])


def row_of_the_head(host: VisionTransformer, num_tokens: int, device: torch.device) -> Tensor:
    """Share of each of `num_tokens` tokens, prefix included, in what the head reads, float32 [P + N].

    Raises:
        UnsupportedModelError: for a host whose head reads neither the class token nor a mean.
    """
    row = torch.zeros(num_tokens, device=device)
    if host.attn_pool is not None or host.global_pool not in ("token", "avg"):
        pooling = "attention pooling" if host.attn_pool is not None else f"global_pool={host.global_pool!r}"
        raise UnsupportedModelError(
            f"scores need a head that reads the class token or the mean of the tokens, this host has {pooling}; "
            "give your own scores, an array [L, N]"
        )
    if host.global_pool == "avg":
        row[0 if host.pool_include_prefix else host.num_prefix_tokens :] = 1
    else:
        row[: 2 if getattr(host, "head_dist", None) is not None else 1] = 1  # distilled hosts read two tokens
    return row / row.sum()
