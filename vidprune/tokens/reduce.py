"""Making a token sequence shorter."""

from __future__ import annotations

import torch
from torch import Tensor


def gather_tokens(tokens: Tensor, kept_index: Tensor, num_prefix: int = 0) -> Tensor:
    """Keep the prefix tokens and the tokens named by `kept_index`, in that order.

    Args:
        tokens: [B, P + N, D].
        kept_index: int64 [B, K], counted without the prefix.
        num_prefix: P, the number of class, distillation and register tokens at the front.

    Returns:
        [B, P + K, D].
    """
    index = (kept_index + num_prefix).unsqueeze(-1).expand(-1, -1, tokens.shape[-1])  # [B, K, D]
    kept = tokens.gather(1, index)
    return torch.cat((tokens[:, :num_prefix], kept), dim=1) if num_prefix else kept
