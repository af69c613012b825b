"""Multiply-accumulates of a network at any clip size, counted on the meta device: no weights, no arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.flop_counter import FlopCounterMode


def count_gmacs(build: Callable[[], nn.Module], clip_shape: tuple[int, ...]) -> float:
    """Giga multiply-accumulates of the network made by `build` on one clip of (T, H, W) pixels, or one image of (H, W).

    Convolutions and linear layers count; norms, activations, pooling and resampling are free, as in the papers.
    """
    return _count(build, clip_shape)[0] / 1e9


def count_norm_gmacs(build: Callable[[], nn.Module], clip_shape: tuple[int, ...]) -> float:
    """What fvcore adds for the batch norms of that network: 2 for each element that one puts out, in units of 1e9."""
    return 2 * _count(build, clip_shape)[1] / 1e9


@lru_cache(maxsize=256)
def _count(build: Callable[[], nn.Module], clip_shape: tuple[int, ...]) -> tuple[float, int]:
    """Multiply-accumulates, and elements that batch norms put out."""
    elements = 0

    def add(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal elements
        elements += output.numel()

    net = _without_data(build)
    hooks = [module.register_forward_hook(add) for module in net.modules() if isinstance(module, _BatchNorm)]
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        net(torch.empty(1, 3, *clip_shape, device="meta"))
    for hook in hooks:
        hook.remove()
    return counter.get_total_flops() / 2, elements


@lru_cache(maxsize=32)
def _without_data(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return build().eval()
