"""The controls that any learned proposal must beat: random, uniform, centre and frame difference. No weights, no cost.

Each answers on the ViT's token grid itself, so its map is its scores.
"""

from __future__ import annotations

from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.proposals.base import ClipShape, Proposal, check_clip, require_grid
from vidprune.types import IMAGENET_MEAN, IMAGENET_STD, TokenGrid

_Bits = TypeVar("_Bits", Tensor, int)

_MASK32 = 0xFFFFFFFF
_WEYL = 0x9E3779B1  # odd, near 2^32 over the golden ratio: steps of it visit all 32-bit numbers


class _Control(Proposal):
    checkpoint_source = "no weights"

    def gmacs(self, clip_shape: ClipShape) -> float:
        return 0.0


class RandomProposal(_Control):
    """Scores that look random and depend on nothing but the seed, the clip and the token's position.

    A counter-based integer hash instead of a generator: no state to share between threads, the same subset whatever the
    batch, no wait for the device, one graph under torch.compile. Two clips with equal pixels get equal subsets.
    """

    name = "random"

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.seed = seed
        self._seed_bits = hash32(seed & _MASK32)

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        check_clip(clip)
        grid = require_grid(self.name, grid)
        stream = hash32(clip_key(clip) ^ self._seed_bits)  # [B]
        position = torch.arange(grid.num_tokens, device=clip.device)  # [N]
        bits = hash32((stream[:, None] + position * _WEYL) & _MASK32)  # [B, N]
        return (bits >> 8).to(torch.float32).view(-1, *grid.shape)  # 24 bits: exact in float32


class UniformProposal(_Control):
    """The same evenly spread set for every clip, at any number of kept tokens.

    Token (t, h, w) scores the fraction of t / phi + h / rho + w / rho^2, with phi the golden ratio (x^2 = x + 1) and
    rho the plastic number (x^3 = x + 1): an additive recurrence, whose upper K values fill every box of the grid nearly
    evenly. Measured on 8x14x14 at keep ratios .1-.7: no 4x7x7 box is off its share by more than 2.2 tokens, no time
    step by more than 1.8 (a random subset: 9-25 and 6-15).
    """

    name = "uniform"

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        check_clip(clip)
        grid = require_grid(self.name, grid)
        return _ranks(_spread(grid, clip.device)).expand(len(clip), -1).view(-1, *grid.shape)


class CentreProposal(_Control):
    """Tokens nearest to the centre of the frame first; equally near ones in an order spread over time and direction.

    Distance is measured in fractions of the frame, so a wide frame's rings are wide too.
    """

    name = "centre"

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        check_clip(clip)
        grid = require_grid(self.name, grid)
        _, h, w = _positions(grid, clip.device)
        # Squared distance in whole units of 1 / (2 h w): equal distances are equal exactly, others differ by 1 or more.
        distance = ((2 * h + 1 - grid.h) * grid.w) ** 2 + ((2 * w + 1 - grid.w) * grid.h) ** 2  # [N]
        score = _spread(grid, clip.device) / 2 - distance  # the spread, in [0, 1/2), decides among equals alone
        return _ranks(score).expand(len(clip), -1).view(-1, *grid.shape)


class FrameDifferenceProposal(_Control):
    """How much the pixels change from frame to frame, averaged over each token's tubelet.

    Frame f has the change |x[f + 1] - x[f]|, mean over the normalised channels; the last frame, which has no successor,
    repeats the change before it. A token's score is the mean over its cell of the grid: for tubelets of 2 frames, the
    change inside the tubelet and the one to the next. Where the grid does not divide the clip, cells overlap by a pixel
    (adaptive average pooling).
    """

    name = "frame_difference"

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        check_clip(clip)
        grid = require_grid(self.name, grid)
        if clip.shape[2] < 2:
            raise ConfigError("proposal 'frame_difference' needs clips of 2 frames or more; an image has no motion")
        clip = clip.to(torch.float32)
        change = (clip[:, :, 1:] - clip[:, :, :-1]).abs().mean(dim=1)  # [B, T - 1, H, W]
        change = torch.cat([change, change[:, -1:]], dim=1)  # [B, T, H, W]
        return F.adaptive_avg_pool3d(change, grid.shape)  # [B, t, h, w]


def hash32(x: _Bits) -> _Bits:
    """Mixes 32-bit numbers held in int64 so that every input bit moves every output bit with probability near 1/2.

    Source: C. Wellons, hash-prospector ("lowbias32", public domain). Both factors are below 2^31 in magnitude (the
    second is taken minus 2^32, the same modulo 2^32), so that no product leaves int64.
    """
    x = ((x ^ (x >> 16)) * 0x7FEB352D) & _MASK32
    x = ((x ^ (x >> 15)) * (0x846CA68B - (1 << 32))) & _MASK32
    return x ^ (x >> 16)


def clip_key(clip: Tensor) -> Tensor:
    """One 32-bit number per clip, int64 [B], from a lattice of its pixels: every frame, every 8th row and column.

    Pixels are first brought back to whole 8-bit intensities, so the key does not change with the device's last bit or
    with half precision; integer sums make it exact in any order.
    """
    pixels = clip[:, :, :, ::8, ::8].to(torch.float32)
    # Channel by channel with plain numbers: a tensor of constants would have to be copied to the device at every call.
    channels = [255 * (pixels[:, c] * IMAGENET_STD[c] + IMAGENET_MEAN[c]) for c in range(3)]
    intensity = torch.stack(channels, dim=1).round().to(torch.int64).flatten(1)  # [B, L]
    position = torch.arange(intensity.shape[1], device=clip.device)
    return hash32((intensity + position * _WEYL) & _MASK32).sum(dim=1) & _MASK32


def _positions(grid: TokenGrid, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """(t, h, w) of every token, float64 [N] each, in token order."""
    axes = [torch.arange(size, device=device, dtype=torch.float64) for size in grid.shape]
    t, h, w = torch.meshgrid(*axes, indexing="ij")
    return t.flatten(), h.flatten(), w.flatten()


def _spread(grid: TokenGrid, device: torch.device) -> Tensor:
    """The low-discrepancy number of every token, float64 [N] in [0, 1); see `UniformProposal`."""
    t, h, w = _positions(grid, device)
    golden, plastic = 1.618033988749895, 1.324717957244746
    return (t / golden + h / plastic + w / plastic**2) % 1.0


def _ranks(score: Tensor) -> Tensor:
    """Minus the rank of every token, float32 [N], 0 for the best: exact where the scores themselves would round."""
    order = score.argsort(descending=True, stable=True)
    return -order.argsort().to(torch.float32)
