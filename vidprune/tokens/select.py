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
    return torch.sort(best_first(scores)[:, :num_kept], dim=1).values  # [B, K]


def best_first(scores: Tensor) -> Tensor:
    """int64 [B, N], positions from the highest score to the lowest; equal ones ascending, NaN last."""
    scores = scores.float().nan_to_num(nan=float("-inf"))  # what was minus infinity becomes the lowest finite number
    return torch.sort(scores, dim=1, descending=True, stable=True).indices


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
