"""From scores to the index of kept tokens, and back to a mask."""

from __future__ import annotations

import torch
from torch import Tensor


def top_k_index(scores: Tensor, num_kept: int) -> Tensor:
    """Index of the `num_kept` highest scores per sample, in ascending order.

    Ties keep the lower index, so the result does not depend on device or batch. A NaN score never wins a place.

    Args:
        scores: [B, N].
        num_kept: K, 1 <= K <= N.

    Returns:
        int64 [B, K], ascending.
    """
    return torch.sort(_best_first(scores)[:, :num_kept], dim=1).values  # [B, K]


def top_mass_mask(scores: Tensor, mass: float, min_kept: int = 1, max_kept: int | None = None) -> Tensor:
    """The fewest tokens per sample that hold the share `mass` of its scores, measured from its lowest score.

    With w = score - lowest score, sorted downwards, the first k tokens with w_1 + ... + w_k >= mass * (w_1 + ... + w_N)
    stay; so any a * score + b with a > 0 keeps the same set. Where all scores are equal, each token holds 1 / N. Sums
    are float64, shares are compared to within 1e-9. Ties keep the lower index. A score that is not a number, or minus
    infinity, holds nothing; plus infinity holds as much as the highest finite score.

    Args:
        scores: [B, N].
        mass: in (0, 1]; 1 keeps all.
        min_kept, max_kept: the least and the most tokens of a sample that stay, 1 <= min_kept <= max_kept <= N.

    Returns:
        bool [B, N], True = kept.
    """
    num_tokens = scores.shape[1]
    order = _best_first(scores)  # [B, N]
    weights = _above_lowest(scores).gather(1, order)
    share = weights.cumsum(dim=1)
    share = share / share[:, -1:]  # [B, N], ascending to 1
    counts = (share < mass - 1e-9).sum(dim=1) + 1 if mass < 1.0 else torch.full_like(order[:, 0], num_tokens)
    counts = counts.clamp(min_kept, num_tokens if max_kept is None else max_kept)  # [B]
    chosen = torch.arange(num_tokens, device=scores.device) < counts[:, None]  # [B, N], in order of score
    return torch.zeros_like(chosen).scatter(1, order, chosen)


def _best_first(scores: Tensor) -> Tensor:
    """int64 [B, N], positions from the highest score to the lowest; equal ones ascending, NaN last."""
    scores = scores.float().nan_to_num(nan=float("-inf"), posinf=float("inf"), neginf=float("-inf"))
    return torch.sort(scores, dim=1, descending=True, stable=True).indices


def _above_lowest(scores: Tensor) -> Tensor:
    """float64 [B, N], what each score is above the lowest finite one of its sample; 1 where all are equal."""
    scores = scores.double()
    finite = scores.isfinite()
    lowest = scores.where(finite, float("inf")).amin(dim=1, keepdim=True)
    highest = scores.where(finite, float("-inf")).amax(dim=1, keepdim=True)
    weights = torch.where(scores == float("inf"), highest, scores.where(finite, lowest)) - lowest
    return torch.where(highest > lowest, weights, 1.0)


def keep_mask(kept_index: Tensor, num_tokens: int) -> Tensor:
    """bool [B, N], True where a token is kept; for pictures and checks, never inside the model path.

    Entries of -1, which pad the rows of samples that keep fewer, count for nothing.
    """
    mask = torch.zeros(kept_index.shape[0], num_tokens + 1, dtype=torch.bool, device=kept_index.device)
    return mask.scatter(1, kept_index.remainder(num_tokens + 1), True)[:, :num_tokens]  # -1 goes to the last column


def split_index(scores: Tensor, num_kept: int) -> tuple[Tensor, Tensor]:
    """Index of the `num_kept` highest scores and of all others, int64 [B, K] and [B, N - K], each ascending.

    Ties as in `top_k_index`.
    """
    kept_index = top_k_index(scores, num_kept)
    # A stable sort of the mask puts the dropped positions first, in order: no boolean indexing, no data-dependent size.
    is_kept = torch.zeros(scores.shape, dtype=torch.uint8, device=scores.device).scatter(1, kept_index, 1)
    dropped_index = torch.sort(is_kept, dim=1, stable=True).indices[:, : scores.shape[1] - num_kept]
    return kept_index, dropped_index
