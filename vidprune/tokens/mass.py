"""How many tokens hold a share of all the score there is."""

from __future__ import annotations

import torch
from torch import Tensor


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
    reached = ordered.cumsum(dim=1) / ordered.sum(dim=1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
    # A sum that misses the share by rounding alone has reached it: 7 of 10 equal tokens hold 0.7.
    return ((reached < share - 1e-9).sum(dim=1) + 1).clamp(max=num_tokens)
