"""RLT: drop the tubelets whose pixels repeat those of the tubelet before; how many stay depends on the clip.

Source: Choudhury et al., "Don't Look Twice: Faster Video Transformers with Run-Length Tokenization", NeurIPS 2024,
section 3 (static tubelets).
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

import torch
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.pruners.base import HostInfo, Pruner, RaggedStep
from vidprune.tokens.packed import PackedState, pack
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid

FRAMES = ("ends", "all")


@dataclass(frozen=True)
class RLT(Pruner):
    """Keep a tubelet if its pixels differ by more than a threshold from the tubelet before, at the same place.

    The first tubelet in time always stays. Only the selection is here: the length of each run, which the paper can
    encode into the token that stays, needs an embedding that was trained, so position says all there is, as in the
    paper's use on off-the-shelf models.

    Args:
        threshold: mean absolute difference over the pixels and channels of a tubelet, in the units of the model's
            input: ImageNet-normalised, so 0.1, the paper's value, is near 6 of 255 grey levels. 0 drops only exact
            repeats; the higher, the fewer tubelets stay.
        frames: which frames are compared. "ends", the paper's: the last of a tubelet with the first of the one before,
            the two that lie furthest apart; "all": each with its counterpart.
    """

    threshold: float = 0.1
    frames: str = "ends"
    name = "rlt"

    def __post_init__(self) -> None:
        value = self.threshold
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) < float("inf"):
            raise ConfigError(
                f"threshold must be a number from 0 in normalised pixel units, such as 0.1, got {value!r}"
            )
        if self.frames not in FRAMES:
            raise ConfigError(f"frames must be one of {', '.join(FRAMES)}, got {self.frames!r}")

    def build(self, host: HostInfo) -> RLTStep:
        if host.grid.t < 2:
            raise ConfigError(
                "rlt compares each tubelet with the one before it in time, and this host sees one step in time; "
                "use it on a video model, or papr on images"
            )
        return RLTStep(float(self.threshold), self.frames)


class RLTStep(RaggedStep):
    """Keeps the tubelets that change."""

    def __init__(self, threshold: float, frames: str) -> None:
        super().__init__()
        self.threshold = threshold
        self.frames = frames

    def forward(self, pixels: Tensor, state: TokenState) -> TokenState | PackedState:
        with torch.no_grad():
            change = tubelet_change(pixels, state.grid, ends=self.frames == "ends")  # [B, t - 1, h, w]
            first = torch.ones_like(change[:, :1], dtype=torch.bool)
            keep = torch.cat((first, change > self.threshold), dim=1)
        return pack(state, keep.flatten(1))


def tubelet_change(pixels: Tensor, grid: TokenGrid, *, ends: bool) -> Tensor:
    """Mean absolute difference of each tubelet from the one before, float32 [B, t - 1, h, w].

    Args:
        pixels: [B, C, T, H, W], which the grid tiles.
        ends: compare the last frame of a tubelet with the first of the one before; otherwise frame by frame.
    """
    t, h, w = grid.shape
    tubelets = pixels.float().unflatten(2, (t, -1))  # [B, C, t, frames, H, W]
    before, after = tubelets[:, :, :-1], tubelets[:, :, 1:]
    if ends:
        before, after = before[:, :, :, :1], after[:, :, :, -1:]
    difference = (after - before).abs().mean(dim=(1, 3))  # [B, t - 1, H, W]
    return difference.unflatten(3, (w, -1)).unflatten(2, (h, -1)).mean(dim=(3, 5))
