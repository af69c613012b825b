"""What a proposal is: something cheap that looks at the pixels and says where the tokens that matter are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from vidprune.errors import ConfigError
from vidprune.types import TokenGrid, VideoFrames

if TYPE_CHECKING:
    from vidprune.video import ViewPlan

ClipShape = tuple[int, int, int]
"""Pixels of one clip: (T, H, W)."""


class Proposal(nn.Module, ABC):
    """Maps a clip to a map of significance on the proposal's own grid.

    Always in eval mode, whatever the model around it: a proposal is never trained here, and its batch norms must not
    move.

    Attributes:
        name: the registered name.
        description: one line for tables; `create_proposal` fills in the registered one.
        checkpoint_source: the weight file, None for random weights (screens label those), "no weights" for a control.
    """

    name: str = "unnamed"
    description: str = ""
    checkpoint_source: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.training = False

    @abstractmethod
    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        """Significance of each place and time, higher = keep. The caller switches gradients off.

        Args:
            clip: [B, 3, T, H, W], ImageNet mean and std; an image is a clip with T = 1.
            grid: the ViT's token grid. Networks ignore it and answer on their own grid; controls answer on it.

        Returns:
            float32 [B, t', h', w'].
        """

    @abstractmethod
    def gmacs(self, clip_shape: ClipShape) -> float:
        """Giga multiply-accumulates (convolutions and linear layers) per clip of (T, H, W) pixels."""

    def norm_gmacs(self, clip_shape: ClipShape) -> float:
        """What fvcore's convention adds to `gmacs`: 2 per element of a batch norm's output."""
        return 0.0

    def train(self, mode: bool = True) -> Proposal:
        """Stays in eval mode."""
        return super().train(False)


class VideoProposal(Proposal):
    """A proposal that looks at a whole decoded video at once, where the others look at one view after the other.

    Attributes:
        needs_motion: whether the video must be read with its codec's motion vectors.
    """

    needs_motion: bool = False

    @abstractmethod
    def view_maps(
        self, video: VideoFrames, plan: ViewPlan, *, grid: TokenGrid, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """Significance of each place and time of all views of `plan`, in the plan's order.

        Args:
            video: the decoded frames, as `vidprune.video.read_video` gives them for `plan`.
            grid: the ViT's token grid of one view.
            device, dtype: of the model, where the pixels go.

        Returns:
            float32 [V, t', h', w'] on `device`.
        """


def check_clip(clip: Tensor) -> None:
    """Raises `ConfigError` unless `clip` is [B, 3, T, H, W]."""
    if clip.ndim != 5 or clip.shape[1] != 3:
        raise ConfigError(f"a proposal takes clips [B, 3, T, H, W] (an image is T = 1), got {list(clip.shape)}")


def clip_shape(clip: Tensor) -> ClipShape:
    """(T, H, W) of a clip [B, 3, T, H, W]."""
    t, h, w = clip.shape[2:]
    return (t, h, w)


def require_grid(name: str, grid: TokenGrid | None) -> TokenGrid:
    """The grid that a control answers on. Raises `ConfigError` where the caller gave none."""
    if grid is None:
        raise ConfigError(f"proposal {name!r} has no grid of its own: pass grid=TokenGrid(t, h, w)")
    return grid
