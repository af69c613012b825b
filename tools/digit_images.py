"""Batches of single digits on texture in two frames, what a ViT is warmed up on before it sees clips.

Drawn with torch, a whole batch at once, at a fraction of the cost of rendering clips; training digits only.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from digit_scenes import DIGITS, SPRITE, SPRITE_INK, digit_indices, digit_sprites
from torch import Tensor


@lru_cache(maxsize=1)
def _training_digits() -> tuple[Tensor, Tensor]:
    """Opacities float32 [M, 1, SPRITE, SPRITE] and positions in DIGITS int64 [M] of the training digits."""
    sprites, labels = digit_sprites()
    indices = digit_indices("train")
    indices = indices[np.isin(labels[indices], DIGITS)]
    return torch.from_numpy(sprites[indices])[:, None], torch.from_numpy(np.searchsorted(DIGITS, labels[indices]))


def digit_images(num: int, side: int, difficulty: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws `num` digits near the centre of two frames.

    Args:
        difficulty: 0 (plain ground, no second digit) to 1 (full texture, 40 % with a second digit at the border).

    Returns:
        frames float32 [num, 3, 2, side, side] in 0-255, and positions in DIGITS int64 [num].
    """

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(num, *shape, generator=generator) * (high - low) + low

    def sometimes(probability: float) -> Tensor:
        return (torch.rand(num, generator=generator) < probability).float()

    sprites, labels = _training_digits()
    pick = torch.randint(0, len(labels), (2, num), generator=generator)
    ground = 85 + (texture(num, side, generator) - 85) * difficulty
    x, y, dx, dy = uniform(-7, 7), uniform(-7, 7), uniform(-6, 6), uniform(-6, 6)
    angle = uniform(-0.15, 0.15) + uniform(-0.8, 0.8) * sometimes(0.3)
    scale = uniform(28, 34) / SPRITE_INK * (1 + uniform(-0.35, 0.4) * sometimes(0.3))
    bearing, distance = uniform(0, 2 * math.pi), uniform(28, 40)
    other_x, other_y = x + distance * bearing.cos(), y + distance * bearing.sin()
    other_scale, other_shown = uniform(28, 34) / SPRITE_INK, sometimes(0.4 * difficulty).view(-1, 1, 1, 1)
    color, other_color = uniform(150, 255, 3, 1, 1), uniform(150, 255, 3, 1, 1)
    frames = []
    for k in (0, 1):
        alpha = draw(sprites[pick[0]], side, x + k * dx, y + k * dy, angle, scale)
        other = draw(sprites[pick[1]], side, other_x - k * dx, other_y - k * dy, torch.zeros(num), other_scale)
        frame = ground + other * other_shown * (other_color - ground)
        frames.append(frame + alpha * (color - frame))
    clip = torch.stack(frames, 2)
    noise = torch.randn(clip.shape, generator=generator) * 3
    return (clip + noise).clamp_(0, 255), labels[pick[0]]


def texture(num: int, side: int, generator: torch.Generator) -> Tensor:
    """Coloured noise like the renderer's, float32 [num, 3, side, side]."""
    total = torch.rand(num, 3, 1, 1, generator=generator) * 55 + 60
    for cell, strength in ((24, 20.0), (10, 18.0), (4, 12.0)):
        cells = side // cell + 2
        grid = torch.randn(num, 3, cells, cells, generator=generator)
        grid = grid + torch.randn(num, 1, cells, cells, generator=generator)
        total = total + F.interpolate(grid, (side, side), mode="bilinear") * strength
    return total


def draw(sprites: Tensor, side: int, x: Tensor, y: Tensor, angle: Tensor, scale: Tensor) -> Tensor:
    """Opacity [num, 1, side, side] of sprites turned, scaled and moved by (x, y) pixels from the centre."""
    zoom = side / (scale * SPRITE)  # from output to sprite coordinates, both in [-1, 1]
    cos, sin = angle.cos() * zoom, angle.sin() * zoom
    shift_x, shift_y = -(cos * x + sin * y) * 2 / side, -(-sin * x + cos * y) * 2 / side
    theta = torch.stack([torch.stack([cos, sin, shift_x], 1), torch.stack([-sin, cos, shift_y], 1)], 1)
    grid = F.affine_grid(theta, [len(sprites), 1, side, side], align_corners=False)
    return F.grid_sample(sprites, grid, align_corners=False)
