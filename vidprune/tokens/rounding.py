"""How many tokens a ratio keeps, by the papers' rounding, free of binary-float surprises."""

from __future__ import annotations

import math
from decimal import Decimal
from numbers import Real

from vidprune.errors import ConfigError


def check_ratio(name: str, ratio: object) -> float:
    """`ratio` as a float in (0, 1]. Raises `ConfigError` for anything else, NaN and booleans included."""
    if isinstance(ratio, bool) or not isinstance(ratio, Real) or not 0.0 < float(ratio) <= 1.0:  # NaN fails both bounds
        raise ConfigError(f"{name} must be a number in (0, 1], got {ratio!r}; 1 keeps every token, 0.45 keeps 45 %")
    return float(ratio)


def floor_count(total: int, ratio: float) -> int:
    """floor(total * ratio), at least 1; PaPr's int(n z).

    The product is taken in decimal, so 100 tokens at 0.29 keep 29 and not the 28 of `int(0.29 * 100)`.
    """
    return max(1, math.floor(_exact_product(total, ratio)))


def ceil_count(total: int, ratio: float) -> int:
    """ceil(total * ratio), at least 1; the rounding of EViT and STAR."""
    return max(1, math.ceil(_exact_product(total, ratio)))


def round_count(total: int, ratio: float) -> int:
    """total * ratio to the nearest whole number, at least 1, halves to the even one; the rounding of ATS."""
    return max(1, int(_exact_product(total, ratio).to_integral_value()))


def _exact_product(total: int, ratio: float) -> Decimal:
    product = Decimal(repr(float(ratio))) * total
    nearest = product.to_integral_value()
    # 1/3 has no finite decimal: 3 * 0.3333333333333333 means 1, not 0.9999999999999999.
    return nearest if abs(product - nearest) < Decimal("1e-9") else product
