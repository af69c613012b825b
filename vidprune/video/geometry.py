"""Sizes of resized frames: the short side is set, the long side follows by the rule of the protocol."""

from __future__ import annotations

from vidprune.errors import ConfigError

ROUNDINGS = ("floor", "round")


def resized_size(height: int, width: int, short_side: int | None, rounding: str = "floor") -> tuple[int, int]:
    """(height, width) after the short side becomes `short_side`; unchanged for None or where it already is that long.

    Args:
        rounding: how the long side becomes whole. "floor": `floor(short_side * long / short)`, VideoMAE's test
            pipeline. "round": `int(long * (short_side / short) + 0.5)`, mmcv's rescale rule; kept in binary floats
            because exact ties (a short side of 320 makes the factor 0.7) come out below the half there.
    """
    if rounding not in ROUNDINGS:
        raise ConfigError(f"rounding must be one of {', '.join(ROUNDINGS)}, got {rounding!r}")
    short = min(height, width)
    if short_side is None or short == short_side:
        return height, width
    long = max(height, width)
    long = short_side * long // short if rounding == "floor" else int(long * (short_side / short) + 0.5)
    return (long, short_side) if height >= width else (short_side, long)
