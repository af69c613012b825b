"""Accuracy with its uncertainty."""

from __future__ import annotations

import math

from vidprune.errors import ConfigError


def wilson_interval(num_correct: int, num_total: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion; 95 % by default.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    if not 0 <= num_correct <= num_total or num_total == 0:
        raise ConfigError(f"need 0 <= correct <= total and total > 0, got {num_correct} of {num_total}")
    p = num_correct / num_total
    centre = p + z * z / (2 * num_total)
    half = z * math.sqrt(p * (1 - p) / num_total + z * z / (4 * num_total**2))
    scale = 1 + z * z / num_total
    return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)
