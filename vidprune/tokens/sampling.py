"""Inverse-CDF sampling without chance: evenly spaced levels pick the tokens nearest to them."""

from __future__ import annotations

import torch
from torch import Tensor


def inverse_cdf_mask(scores: Tensor, num_levels: int) -> Tensor:
    """The tokens that `num_levels` evenly spaced levels pick from the cumulative sum of the ascending scores.

    The sum is rescaled to run from 0 to 1; the levels run from its smallest value above 0 to 1; a single level is 1.
    Each picks the token whose sum is nearest, of equally near ones the first, and tokens picked twice count once: where
    few tokens hold most of the score, many levels meet in them, and few tokens stay. (ATS, ECCV 2022, token sampling;
    levels as released.)

    Args:
        scores: [K], of one sample; taken as 0 where negative or not a number. The sum is float64.
        num_levels: at least 1.

    Returns:
        bool [K], True for the picked ones: at least one, at most num_levels.
    """
    scores = scores.double().nan_to_num(nan=0.0).clamp(min=0.0)
    order = scores.sort(stable=True).indices
    total = scores[order].cumsum(dim=0)
    span = total[-1] - total[0]
    even = torch.arange(1, len(total) + 1, device=scores.device) / len(total)  # all scores 0, or one token alone
    total = torch.where(span > 0, (total - total[0]) / span, even.double())
    first = total.where(total > 0, 1.0).amin()
    steps = torch.linspace(0, 1, num_levels, dtype=torch.float64, device=scores.device)
    levels = first + (1 - first) * steps if num_levels > 1 else steps + 1
    return torch.zeros_like(scores, dtype=torch.bool).scatter(0, order[_nearest(total, levels)], True)


def _nearest(ascending: Tensor, levels: Tensor) -> Tensor:
    """For each level, the first position in `ascending` whose value is nearest to it."""
    above = torch.searchsorted(ascending, levels).clamp(max=len(ascending) - 1)
    below = (above - 1).clamp(min=0)
    is_below = levels - ascending[below] <= ascending[above] - levels
    return torch.searchsorted(ascending, ascending[torch.where(is_below, below, above)])  # the first of equal values
