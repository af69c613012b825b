"""Analytic cost of ConvNeXt and Swin, whose pointwise layers may run on fewer pixels than the rest.

Every count is a layer's own weights times the pixels that it runs on. Formulas: ConvNeXt (Liu et al., CVPR 2022) and
Swin (Liu et al., ICCV 2021, Eq. 2) with PaPr's kept pixels k in place of h w where a layer is pointwise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vidprune.hierarchical.families import PrunedConvNeXt
from vidprune.hierarchical.model import PrunedHierarchical, image_size, shape_after
from vidprune.types import TokenGrid


@dataclass
class Tally:
    """Work counted so far.

    Attributes:
        matmul: multiply-accumulates of convolutions, linear layers and attention.
        pointwise: those of `matmul` in layers that can run on kept pixels alone.
        norms: what fvcore adds: 5 per LayerNorm element, 2 per batch norm element, 1 per element pooled.
    """

    matmul: float = 0.0
    pointwise: float = 0.0
    norms: float = 0.0

    def weights(self, module: nn.Module, pixels: float) -> None:
        """A convolution or linear layers on `pixels` places; norms and activations among them are not counted."""
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
        self.matmul += pixels * sum(layer.weight.numel() for layer in layers)

    def norm(self, module: nn.Module, elements: float) -> None:
        """A norm over `elements` elements, by its kind; those that fvcore does not know are free."""
        if isinstance(module, nn.LayerNorm):
            self.norms += 5 * elements
        elif isinstance(module, _BatchNorm):
            self.norms += 2 * elements

    def chain(self, module: nn.Module, x: Tensor) -> Tensor:
        """Layers one after the other on a map without data; returns the map that leaves them."""
        for layer in module if isinstance(module, nn.Sequential) else [module]:
            x = shape_after(layer, x)
            self.norm(layer, x.numel())
            if isinstance(layer, nn.Conv2d):
                self.weights(layer, x.shape[2] * x.shape[3])
        return x


def count(model: PrunedHierarchical, pixels: Sequence[int]) -> Tally:
    """Work per image of the host's own size, its pointwise layers on `pixels` places per stage."""
    tally = Tally()
    if isinstance(model, PrunedConvNeXt):
        _count_convnext(model, pixels, tally)
    else:
        _count_swin(model, pixels, tally)
    return tally


def _count_convnext(model: PrunedHierarchical, pixels: Sequence[int], tally: Tally) -> None:
    host = model.host
    x = tally.chain(host.stem, torch.empty(1, host.in_chans, *image_size(host), device="meta"))
    for stage, grid, kept in zip(model.stages, model.grids, pixels, strict=True):
        x = tally.chain(stage.downsample, x)
        for block in stage.blocks:
            tally.weights(block.conv_dw, grid.num_tokens)
            _pointwise(tally, block, kept)
            tally.norm(block.norm, kept * x.shape[1])
    tally.norm(host.norm_pre, x.numel())
    tally.norms += x.numel()  # adaptive pooling: 1 per element
    if hasattr(host.head, "norm"):  # after the pool, unless norm_pre went before it
        tally.norm(host.head.norm, x.shape[1])
    tally.weights(host.head, 1)


def _count_swin(model: PrunedHierarchical, pixels: Sequence[int], tally: Tally) -> None:
    host = model.host
    embed = host.patch_embed
    first = math.prod(embed.grid_size)
    tally.weights(embed.proj, first)
    tally.norm(embed.norm, first * embed.proj.out_channels)
    for stage, grid, kept in zip(model.stages, model.grids, pixels, strict=True):
        _count_merging(tally, stage.downsample, grid)
        for block in stage.blocks:
            _count_windows(tally, block, grid)
            _pointwise(tally, block, kept)
            tally.norm(block.norm1, grid.num_tokens * block.dim)
            tally.norm(block.norm2, kept * block.dim)
    tally.norm(host.norm, model.grids[-1].num_tokens * host.num_features)
    tally.weights(host.head, 1)


def _count_merging(tally: Tally, merging: Any, grid: TokenGrid) -> None:
    if not isinstance(merging, nn.Identity):
        tally.weights(merging.reduction, grid.num_tokens)
        tally.norm(merging.norm, grid.num_tokens * merging.norm.weight.numel())


def _count_windows(tally: Tally, block: Any, grid: TokenGrid) -> None:
    """Window attention, which pads the grid to whole windows."""
    attn, (height, width) = block.attn, block.window_size
    padded = math.ceil(grid.h / height) * height * math.ceil(grid.w / width) * width
    tally.weights(attn.qkv, padded)
    tally.weights(attn.proj, padded)
    tally.matmul += 2 * padded * height * width * attn.proj.in_features  # scores, and their use
    if hasattr(attn, "cpb_mlp"):  # Swin V2 computes its position bias from offsets
        tally.weights(attn.cpb_mlp, (2 * height - 1) * (2 * width - 1))


def _pointwise(tally: Tally, block: Any, kept: int) -> None:
    before = tally.matmul
    tally.weights(block.mlp, kept)
    tally.pointwise += tally.matmul - before
