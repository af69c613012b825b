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
    scores = scores.float().nan_to_num(nan=float("-inf"), posinf=float("inf"), neginf=float("-inf"))
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices  # [B, N]
    return torch.sort(order[:, :num_kept], dim=1).values  # [B, K]


def keep_mask(kept_index: Tensor, num_tokens: int) -> Tensor:
    """bool [B, N], True where a token is kept; for pictures and checks, never inside the model path."""
    mask = torch.zeros(kept_index.shape[0], num_tokens, dtype=torch.bool, device=kept_index.device)
    return mask.scatter(1, kept_index, True)
