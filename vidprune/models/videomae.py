"""VideoMAE as a timm `VisionTransformer`: a tubelet embedding, a fixed sine-cosine table, mean pooling and fc_norm.

Because it is a timm `VisionTransformer`, every pruner written for image ViTs runs on it unchanged.
Source: Tong et al., "VideoMAE", NeurIPS 2022; sizes of VideoMAE V2 from Wang et al., CVPR 2023.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, unknown_name
from vidprune.types import TokenGrid

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)


@dataclass(frozen=True)
class VideoMAESpec:
    """Architecture of one VideoMAE model. `tubelet` is (frames, height, width) in pixels.

    Raises `ConfigError` for a clip that tubelets do not tile or a width that heads do not divide.
    """

    width: int
    depth: int
    num_heads: int
    mlp_ratio: float = 4.0
    num_frames: int = 16
    image_size: int = 224
    tubelet: tuple[int, int, int] = (2, 16, 16)

    def __post_init__(self) -> None:
        if min(self.width, self.depth, self.num_heads, self.num_frames, self.image_size, *self.tubelet) < 1:
            raise ConfigError(f"every size of a VideoMAE must be at least 1, got {self}")
        if self.width % self.num_heads:
            raise ConfigError(f"num_heads {self.num_heads} does not divide the width {self.width}")
        t, h, w = self.tubelet
        if self.num_frames % t or self.image_size % h or self.image_size % w:
            raise ConfigError(
                f"{self.num_frames} frames of {self.image_size} px are not tiled by tubelets of {t}x{h}x{w}: "
                f"num_frames must be a multiple of {t} and image_size of {h}"
            )

    @property
    def grid(self) -> TokenGrid:
        t, h, w = self.tubelet
        return TokenGrid(self.num_frames // t, self.image_size // h, self.image_size // w)

    @property
    def mlp_width(self) -> int:
        """Width of the MLP's hidden layer, truncated as timm and the original do."""
        return int(self.width * self.mlp_ratio)


VIDEOMAE_SPECS: dict[str, VideoMAESpec] = {
    # Ours: small enough to be trained on two CPU cores and shipped inside the package.
    "videomae_tiny": VideoMAESpec(width=128, depth=4, num_heads=4, num_frames=8, image_size=112),
    "videomae_small": VideoMAESpec(width=384, depth=12, num_heads=6),
    "videomae_base": VideoMAESpec(width=768, depth=12, num_heads=12),
    "videomae_large": VideoMAESpec(width=1024, depth=24, num_heads=16),
    "videomae_huge": VideoMAESpec(width=1280, depth=32, num_heads=16),
    "videomae_v2_small": VideoMAESpec(width=384, depth=12, num_heads=6),
    "videomae_v2_base": VideoMAESpec(width=768, depth=12, num_heads=12),
    "videomae_v2_giant": VideoMAESpec(width=1408, depth=40, num_heads=16, mlp_ratio=48 / 11, tubelet=(2, 14, 14)),
}


class TubeletEmbed(nn.Module):
    """Projects each tubelet to one token: [B, 3, T, H, W] -> [B, N, D], N in (t, h, w) order."""

    def __init__(
        self,
        img_size: int,
        patch_size: int,
        in_chans: int,
        embed_dim: int,
        bias: bool = True,
        num_frames: int = 16,
        tubelet: tuple[int, int, int] = (2, 16, 16),
        **factory_kwargs: Any,
    ) -> None:
        super().__init__()
        factory_kwargs = {k: v for k, v in factory_kwargs.items() if k in ("device", "dtype")}
        self.num_frames = num_frames
        self.image_size = img_size
        self.tubelet = tubelet
        self.grid = TokenGrid(num_frames // tubelet[0], img_size // tubelet[1], img_size // tubelet[2])
        self.num_patches = self.grid.num_tokens
        self.proj = nn.Conv3d(in_chans, embed_dim, kernel_size=tubelet, stride=tubelet, bias=bias, **factory_kwargs)

    def forward(self, x: Tensor) -> Tensor:
        expected = (self.num_frames, self.image_size, self.image_size)
        if x.ndim != 5 or tuple(x.shape[2:]) != expected:
            raise ConfigError(
                f"this VideoMAE takes clips [B, 3, {expected[0]}, {expected[1]}, {expected[2]}], got {list(x.shape)}; "
                "set num_frames, short_side and crop_size of the view plan to match the model"
            )
        return self.proj(x).flatten(2).transpose(1, 2)  # [B, D, t, h, w] -> [B, N, D]


class VideoMAE(VisionTransformer):
    """A timm `VisionTransformer` over tubelets. Input [B, 3, T, H, W], output logits [B, num_classes].

    Attributes:
        spec: its architecture.
        checkpoint_source: the file its weights came from, None for random weights.
    """

    def __init__(self, spec: VideoMAESpec, num_classes: int = 400) -> None:
        super().__init__(
            img_size=spec.image_size,
            patch_size=spec.tubelet[1],
            num_classes=num_classes,
            global_pool="avg",
            embed_dim=spec.width,
            depth=spec.depth,
            num_heads=spec.num_heads,
            mlp_ratio=spec.mlp_ratio,
            class_token=False,
            pos_embed="none",
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            embed_layer=partial(TubeletEmbed, num_frames=spec.num_frames, tubelet=spec.tubelet),
        )
        self.spec = spec
        self.checkpoint_source: str | None = None
        # Fixed, so it is not part of the state dict: no published checkpoint holds it.
        del self.pos_embed
        table = sincos_position_table(spec.grid.num_tokens, spec.width)
        self.register_buffer("pos_embed", table, persistent=False)

    @property
    def token_grid(self) -> TokenGrid:
        return self.spec.grid

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(T, H, W) of the clips it takes."""
        return (self.spec.num_frames, self.spec.image_size, self.spec.image_size)


def sincos_position_table(num_positions: int, width: int) -> Tensor:
    """VideoMAE's fixed position table over the flat token index, float32 [1, num_positions, width].

    Channel j of position p holds p / 10000^(2 * floor(j / 2) / width), its sine for even j and its cosine for odd j;
    built in float64 as the original does.
    """
    channel = np.arange(width)
    angle = np.arange(num_positions)[:, None] / np.power(10000.0, 2 * (channel // 2) / width)[None, :]  # [N, D]
    table = np.where(channel % 2 == 0, np.sin(angle), np.cos(angle))
    return torch.tensor(table, dtype=torch.float32).unsqueeze(
        0
    )  # [1, N, D]; unlike from_numpy, obeys torch.device("meta")


def videomae_spec(name: str) -> VideoMAESpec:
    """The architecture registered as `name`. Raises `UnknownNameError` with the nearest names."""
    if name not in VIDEOMAE_SPECS:
        raise unknown_name("VideoMAE model", name, VIDEOMAE_SPECS)
    return VIDEOMAE_SPECS[name]
