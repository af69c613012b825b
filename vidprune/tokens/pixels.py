"""Kept pixels of a feature map: read as rows, worked on, written back to their places."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class KeptPixels:
    """Which pixels of a feature map [B, H, W, C] are kept.

    Whole rows are copied by number, which is faster than `gather`, whose index has one entry per channel.

    Attributes:
        index: int64 [B, K] ascending, places within H * W.
        rows: int64 [B * K], the same pixels as rows of the map flattened to [B * H * W, C].
    """

    index: Tensor
    rows: Tensor

    @classmethod
    def of(cls, index: Tensor, num_pixels: int) -> KeptPixels:
        """From places [B, K] in maps of `num_pixels` pixels."""
        first = torch.arange(index.shape[0], device=index.device).unsqueeze(1) * num_pixels  # [B, 1]
        return cls(index, (index + first).flatten())

    def take(self, features: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, K, C]."""
        kept = features.reshape(-1, features.shape[-1]).index_select(0, self.rows)  # [B * K, C]
        return kept.view(*self.index.shape, -1)

    def put(self, features: Tensor, kept: Tensor) -> Tensor:
        """`features` [B, H, W, C] with the kept pixels replaced by `kept` [B, K, C]; a new tensor."""
        flat = features.reshape(-1, features.shape[-1])
        return flat.index_copy(0, self.rows, kept.reshape(-1, kept.shape[-1])).view(features.shape)
