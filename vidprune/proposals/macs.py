"""Multiply-accumulates of a network at any clip size, counted on the meta device: no weights, no arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@lru_cache(maxsize=256)
def count_gmacs(build: Callable[[], nn.Module], clip_shape: tuple[int, ...]) -> float:
    """Giga multiply-accumulates of the network made by `build` on one clip of (T, H, W) pixels, or one image of (H, W).

    Convolutions and linear layers count; norms, activations, pooling and resampling are free, as in the papers.
    """
    with torch.device("meta"), torch.no_grad():
        net = build().eval()
        counter = FlopCounterMode(display=False)
        with counter:
            net(torch.empty(1, 3, *clip_shape))
    return counter.get_total_flops() / 2 / 1e9
