"""Squeezing pruned tokens into the kept tokens that are most like them.

Source: Wei et al., "Joint Token Pruning and Squeezing Towards More Aggressive Compression of Vision Transformers",
CVPR 2023, section 3.2 (matching by cosine, Eq. 3 to 5 for the weights).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidprune.tokens.moves import Move
from vidprune.tokens.reduce import gather_tokens


def squeeze_tokens(tokens: Tensor, kept_index: Tensor, dropped_index: Tensor) -> tuple[Tensor, Move]:
    """Add each dropped token to its most similar kept token, its host.

    A host becomes (e h + sum of exp(s_i) p_i) / (e + sum of exp(s_i)) over its guests p_i with cosines
    s_i; e is exp(1), for its own cosine 1. A host without guests stays as it is, bit for bit. Ties go to the first
    kept token.

    Args:
        tokens: [B, K, D], prefix tokens left out: they are no hosts.
        kept_index: int64 [B, K'].
        dropped_index: int64 [B, K - K'].

    Returns:
        Tokens [B, K', D] in the order of `kept_index`, and the move.
    """
    kept, dropped = gather_tokens(tokens, kept_index), gather_tokens(tokens, dropped_index)
    with torch.no_grad():  # the choice of a host is not differentiable, and its weight follows the choice
        host, cosine = most_similar(dropped, kept)  # [B, K - K']
        weights = cosine.exp()
        own = torch.full(kept_index.shape, torch.e, device=tokens.device)  # float32 [B, K'], exp(1)
        total = own.scatter_add(1, host, weights)
        has_guests = total > own
    weighted = kept.float() * own.unsqueeze(-1)
    index = host.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    weighted = weighted.scatter_add(1, index, dropped.float() * weights.unsqueeze(-1))
    squeezed = (weighted / total.unsqueeze(-1)).to(tokens.dtype)
    return torch.where(has_guests.unsqueeze(-1), squeezed, kept), Move(kept_index, joined=dropped_index, host=host)


def most_similar(tokens: Tensor, candidates: Tensor) -> tuple[Tensor, Tensor]:
    """For each of tokens [B, M, D] the most similar of candidates [B, K, D] and their cosine; ties go to the first.

    Returns:
        int64 [B, M] and float32 [B, M].
    """
    similarity = _unit(tokens) @ _unit(candidates).transpose(1, 2)  # [B, M, K]
    return similarity.argmax(dim=2), similarity.amax(dim=2)


def _unit(tokens: Tensor) -> Tensor:
    return F.normalize(tokens.float(), dim=-1, eps=1e-6)
