"""Merging similar tokens: bipartite soft matching and two ways to form one token from several.

Sources: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, section 3 (matching, size-weighted mean);
Kim et al., "Token Fusion: Bridging the Gap between Token Pruning and Token Merging", WACV 2024 (MLERP).
All functions here take tokens without the prefix tokens, which are never merged and never merged into.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidprune.tokens.moves import Move


def max_merged(num_tokens: int) -> int:
    """How many of `num_tokens` tokens (prefix not counted) one matching can merge away at most: half of them."""
    return num_tokens // 2


@torch.no_grad()
def bipartite_match(metric: Tensor, num_merged: int, num_prefix: int = 0) -> Move:
    """Pair the most similar tokens of two alternating sets; the `num_merged` best pairs are to be merged.

    Set A holds the even positions of the whole sequence, prefix counted, set B the odd ones. Each token of A picks its
    most similar token of B (cosine); of these pairs the best are taken. Ties go to the lower position. The new order is
    the rest of A, then B, each ascending: tokens meet new neighbours in the next block.

    Args:
        metric: [B, K, C], K >= 2, e.g. keys averaged over heads.
        num_merged: r, 0 <= r <= K // 2.
        num_prefix: P, which only decides whether the first token is at an even or an odd position.
    """
    batch, num_tokens, _ = metric.shape
    positions = torch.arange(num_tokens, device=metric.device)
    first = num_prefix % 2
    set_a, set_b = positions[first::2], positions[1 - first :: 2]
    metric = F.normalize(metric.float(), dim=-1)
    similarity = metric[:, set_a] @ metric[:, set_b].transpose(1, 2)  # [B, |A|, |B|]
    partner = similarity.argmax(dim=2)  # [B, |A|]
    best = similarity.amax(dim=2)
    order = torch.sort(best, dim=1, descending=True, stable=True).indices  # [B, |A|]
    merged, rest = order[:, :num_merged], torch.sort(order[:, num_merged:], dim=1).values
    kept = torch.cat((set_a[rest], set_b.expand(batch, -1)), dim=1)  # [B, K - r]
    return Move(kept=kept, joined=set_a[merged], host=rest.shape[1] + partner.gather(1, merged))


def merge_mean(tokens: Tensor, sizes: Tensor, move: Move) -> tuple[Tensor, Tensor]:
    """Size-weighted mean of the tokens that go together (ToMe, section 3); the sum of size times token is preserved.

    Args:
        tokens: [B, K, D].
        sizes: float32 [B, K].

    Returns:
        Tokens [B, K', D] in their own dtype and their sizes, float32 [B, K'].
    """
    new_sizes = merged_sizes(sizes, move)
    weighted = tokens.float() * sizes.unsqueeze(-1)  # float32: a sum over many tokens would lose bits in half precision
    total = _gather(weighted, move.kept)
    if move.joined is not None and move.host is not None:
        total = total.scatter_add(1, _expand(move.host, total), _gather(weighted, move.joined))
    return (total / new_sizes.unsqueeze(-1)).to(tokens.dtype), new_sizes


def merge_mlerp(tokens: Tensor, sizes: Tensor, move: Move) -> tuple[Tensor, Tensor]:
    """The mean's direction with the largest norm among the tokens that go together (ToFu's MLERP).

    A mean is shorter than its members; this keeps the norm that later layers were trained on. Tokens that nothing was
    merged into stay as they are, bit for bit. The mean is weighted by size, as in `merge_mean`.
    """
    mean, new_sizes = merge_mean(tokens, sizes, move)
    own = _gather(tokens, move.kept)  # [B, K', D]
    if move.joined is None or move.host is None:
        return own, new_sizes
    norms = tokens.float().norm(dim=-1)  # [B, K]
    largest = norms.gather(1, move.kept).scatter_reduce(1, move.host, norms.gather(1, move.joined), reduce="amax")
    rescaled = F.normalize(mean.float(), dim=-1) * largest.unsqueeze(-1)
    has_guests = torch.zeros_like(move.kept, dtype=torch.bool).scatter(1, move.host, True)  # [B, K']
    return torch.where(has_guests.unsqueeze(-1), rescaled.to(tokens.dtype), own), new_sizes


def merged_sizes(sizes: Tensor, move: Move) -> Tensor:
    """How many tokens each new token stands for, [B, K']."""
    new_sizes = sizes.gather(1, move.kept)
    if move.joined is None or move.host is None:
        return new_sizes
    return new_sizes.scatter_add(1, move.host, sizes.gather(1, move.joined))


def _expand(index: Tensor, tokens: Tensor) -> Tensor:
    return index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])


def _gather(tokens: Tensor, index: Tensor) -> Tensor:
    return tokens.gather(1, _expand(index, tokens))
