"""ConvNeXt and Swin, V1 and V2: how each runs a block on its kept pixels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError
from vidprune.hierarchical.model import PrunedHierarchical
from vidprune.pruners.base import Pruner
from vidprune.tokens.pixels import KeptPixels
from vidprune.types import TokenGrid

ensure_torchvision()
from timm.models import convnext, swin_transformer, swin_transformer_v2  # noqa: E402  (the guard above must come first)


class PrunedConvNeXt(PrunedHierarchical):
    """A timm ConvNeXt, V1 or V2, whose LayerNorms and pointwise layers run on the kept pixels alone.

    The depthwise convolution runs everywhere, and sees zeros where pixels were dropped. ConvNeXt V2's global response
    norm, which would look at all pixels, takes its statistics from the kept ones.
    """

    family = (convnext.ConvNeXt, convnext.ConvNeXtStage, convnext.ConvNeXtBlock)

    def embed(self, pixels: Tensor) -> Tensor:
        return self.host.stem(pixels)

    def run_block(self, block: Any, x: Tensor, kept: KeptPixels) -> Tensor:
        x = x.contiguous(
            memory_format=torch.channels_last
        )  # rows of pixels lie together, so nothing below copies the map
        shortcut = x.permute(0, 2, 3, 1)  # [B, H, W, C]
        rows = kept.take(block.conv_dw(x).permute(0, 2, 3, 1))  # [B, K, C]
        if block.use_conv_mlp:
            rows = block.mlp(block.norm(rows.transpose(1, 2).unsqueeze(-1)))  # [B, C, K, 1]
            rows = rows.squeeze(-1).transpose(1, 2)
        else:
            rows = block.mlp(block.norm(rows.unsqueeze(2))).squeeze(2)  # as a map [B, K, 1, C]
        if block.gamma is not None:
            rows = rows * block.gamma
        rows = block.drop_path(rows) + kept.take(shortcut)
        dropped = shortcut if self.keep_shortcut else torch.zeros_like(shortcut, memory_format=torch.contiguous_format)
        return kept.put(dropped, rows).permute(0, 3, 1, 2)

    def finish(self, x: Tensor) -> Tensor:
        return self.host.forward_head(self.host.norm_pre(x))

    def grid_of(self, x: Tensor) -> TokenGrid:
        return TokenGrid(1, x.shape[2], x.shape[3])

    def random_map(self, block: Any, grid: TokenGrid) -> Tensor:
        return _randn(block.conv_dw.weight, (1, block.conv_dw.in_channels, grid.h, grid.w))


class PrunedSwin(PrunedHierarchical):
    """A timm Swin, V1 or V2, whose MLPs run on the kept pixels alone; window attention runs everywhere."""

    family = (
        swin_transformer.SwinTransformer,
        swin_transformer.SwinTransformerStage,
        swin_transformer.SwinTransformerBlock,
    )

    def __init__(self, host: nn.Module, method: Pruner) -> None:
        super().__init__(host, method)
        if self.keep_shortcut:
            raise ConfigError("keep_shortcut is an option on ConvNeXt; Swin always keeps the residual stream")

    @property
    def stages(self) -> Sequence[Any]:
        return self.host.layers

    def embed(self, pixels: Tensor) -> Tensor:
        return self.host.patch_embed(pixels)

    def run_block(self, block: Any, x: Tensor, kept: KeptPixels) -> Tensor:
        x = x + block.drop_path1(block._attn(block.norm1(x)))  # [B, H, W, C]
        rows = kept.take(x)  # [B, K, C]
        return kept.put(x, rows + block.drop_path2(block.mlp(block.norm2(rows))))

    def finish(self, x: Tensor) -> Tensor:
        return self.host.forward_head(self.host.norm(x))

    def grid_of(self, x: Tensor) -> TokenGrid:
        return TokenGrid(1, x.shape[1], x.shape[2])

    def random_map(self, block: Any, grid: TokenGrid) -> Tensor:
        return _randn(block.attn.qkv.weight, (1, grid.h, grid.w, block.dim))


class PrunedSwinV2(PrunedSwin):
    """Swin V2 normalises what a branch adds, not what it gets."""

    family = (
        swin_transformer_v2.SwinTransformerV2,
        swin_transformer_v2.SwinTransformerV2Stage,
        swin_transformer_v2.SwinTransformerV2Block,
    )

    def run_block(self, block: Any, x: Tensor, kept: KeptPixels) -> Tensor:
        x = x + block.drop_path1(block.norm1(block._attn(x)))  # [B, H, W, C]
        rows = kept.take(x)  # [B, K, C]
        return kept.put(x, rows + block.drop_path2(block.norm2(block.mlp(rows))))


FAMILIES = (PrunedConvNeXt, PrunedSwin, PrunedSwinV2)


def _randn(like: Tensor, shape: tuple[int, ...]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(shape, generator=generator).to(like.device, like.dtype)
