"""How many tokens hold a share of all the score there is."""

from __future__ import annotations

import torch
from torch import Tensor

from vidprune.tokens.select import best_first


def mass_count(scores: Tensor, share: float) -> Tensor:
    """Size of the smallest set of tokens whose scores add up to `share` of the sum.

    The best tokens make that set, and it is never larger than ceil(share * K): a falling sequence has at least i / K of
    its sum in its first i entries.

    Args:
        scores: [B, K], none negative.
        share: in (0, 1]; 1 is every token, whatever they score.

    Returns:
        int64 [B], 1 to K.
    """
    num_tokens = scores.shape[1]
    if share >= 1.0:
        return torch.full((len(scores),), num_tokens, device=scores.device)
    ordered = scores.double().sort(dim=1, descending=True).values  # float32 sums of many terms miss their total
    total = ordered.sum(dim=1, keepdim=True)
    reached = ordered.cumsum(dim=1) / total.where(total > 0, 1.0)
    # A sum that misses the share by rounding alone has reached it: 7 of 10 equal tokens hold 0.7.
    return ((reached < share - 1e-9).sum(dim=1) + 1).clamp(max=num_tokens)


def top_mass_mask(scores: Tensor, mass: float, min_kept: int = 1, max_kept: int | None = None) -> Tensor:
    """The fewest tokens per sample that hold the share `mass` of its scores, measured from its lowest score.

    With w = score - lowest score, sorted downwards, the first k tokens with w_1 + ... + w_k >= mass * (w_1 + ... + w_N)
    stay; so any a * score + b with a > 0 keeps the same set. Where all scores are equal, each token holds 1 / N. Ties
    keep the lower index. A score that is not a number, or minus infinity, holds nothing; plus infinity holds as much as
    the highest finite score.

    Args:
        scores: [B, N].
        mass: in (0, 1]; 1 keeps all.
        min_kept, max_kept: the least and the most tokens of a sample that stay, 1 <= min_kept <= max_kept <= N.

    Returns:
        bool [B, N], True = kept.
    """
    counts = mass_count(_above_lowest(scores), mass).clamp(min_kept, max_kept)  # [B]
    return best_mask(scores, counts)


def best_mask(scores: Tensor, counts: Tensor) -> Tensor:
    """bool [B, N], True for the `counts` [B] highest of scores [B, N]; ties as in `best_first`. Reads no value."""
    chosen = torch.arange(scores.shape[1], device=scores.device) < counts[:, None]  # [B, N], in order of score
    return torch.zeros_like(chosen).scatter(1, best_first(scores), chosen)


def _above_lowest(scores: Tensor) -> Tensor:
    """float64 [B, N], what each score is above the lowest finite one of its sample; 1 where all are equal."""
    scores = scores.double()
    finite = scores.isfinite()
    lowest = scores.where(finite, float("inf")).amin(dim=1, keepdim=True)
    highest = scores.where(finite, float("-inf")).amax(dim=1, keepdim=True)
    weights = torch.where(scores == float("inf"), highest, scores.where(finite, lowest)) - lowest
    return torch.where(highest > lowest, weights, 1.0)
