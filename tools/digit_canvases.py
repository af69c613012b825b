"""Canvases for the image ViT: one whole digit, small and anywhere, among fragments of other digits on texture.

Digits are scikit-learn's real handwriting; train, val and heldout never share a source image (`digit_scenes`), nor do
their fragments. Fragments have the colours and strokes of the digit, so neither brightness nor contrast tells where
it is: only that it is whole does. Drawn with torch, a whole batch at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from digit_images import draw, texture
from digit_scenes import SPLITS, SPRITE, SPRITE_INK, digit_indices, digit_sprites
from torch import Tensor

SIDE, PATCH = 80, 8
NUM_CLASSES = 10
MAX_FRAGMENTS = 8  # on a whole canvas
GROUND, CONTRAST = 55.0, 0.4  # mean brightness and strength of the texture: every colour of ink stands out
INK = (22.0, 30.0)  # side of the digit's ink area, pixels
CLEARANCE = 28.0  # least distance of a fragment's centre from the digit's, pixels: the digit stays legible
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


@dataclass(frozen=True)
class Canvases:
    """`num` pictures: pixels float32 [num, 3, side, side] in 0-255, labels int64 [num], and the opacity of the digit
    float32 [num, 1, side, side] in [0, 1]."""

    pixels: Tensor
    labels: Tensor
    opacity: Tensor

    @property
    def inputs(self) -> Tensor:
        """What the networks take: pixels with ImageNet's mean and std."""
        return (self.pixels / 255 - MEAN) / STD


def draw_canvases(split: str, num: int, side: int, difficulty: float, generator: torch.Generator) -> Canvases:
    """Draws `num` canvases with digits of `split`.

    Args:
        side: SIDE is the task; less is a window around the digit, with its share of the fragments.
        difficulty: 0 (plain ground, no fragments) to 1 (the task itself), for a curriculum.
    """
    sprites, labels = _digits_of(split)
    pick = torch.randint(0, len(labels), (num,), generator=generator)
    reach = side / 2 - 16
    x, y = (_uniform(num, -reach, reach, generator) for _ in range(2))
    opacity = draw(sprites[pick], side, x, y, _tilt(num, generator), _scale(num, generator))
    ground = GROUND + (texture(num, side, generator) - 85) * CONTRAST * difficulty
    for _ in range(round(MAX_FRAGMENTS * difficulty * (side / SIDE) ** 2)):
        fragment = _draw_fragment(sprites, side, x, y, generator)
        ground = ground + fragment * (_color(num, generator) - ground)
    pixels = ground + opacity * (_color(num, generator) - ground)
    noise = torch.randn(pixels.shape, generator=generator) * 4
    return Canvases((pixels + noise).clamp_(0, 255), labels[pick], opacity)


def heldout_set(num: int, seed: int, split: str = "heldout") -> Canvases:
    """Test set `seed` of the task itself: every seed draws its own canvases, all with digits no training has seen."""
    generator = torch.Generator().manual_seed(10**9 * (1 + SPLITS.index(split)) + seed)
    return draw_canvases(split, num, SIDE, 1.0, generator)


def _draw_fragment(sprites: Tensor, side: int, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """One fragment per canvas, opacity [num, 1, side, side], kept clear of the digits at (x, y)."""
    num = len(x)
    pick = torch.randint(0, len(sprites), (num,), generator=generator)
    piece = sprites[pick] * _piece(num, generator)
    other_x, other_y = (_uniform(num, -side / 2, side / 2, generator) for _ in range(2))
    dx, dy = other_x - x, other_y - y
    distance = torch.hypot(dx, dy).clamp_min(1e-3)
    push = distance.clamp_min(CLEARANCE) / distance
    return draw(piece, side, x + dx * push, y + dy * push, _tilt(num, generator) * 4, _scale(num, generator))


def _piece(num: int, generator: torch.Generator) -> Tensor:
    """A square window of some 40 % of the ink's side at a random place of each sprite, [num, 1, SPRITE, SPRITE]."""
    at = torch.arange(SPRITE, dtype=torch.float32) + 0.5
    margin = (SPRITE - SPRITE_INK) / 2
    half = _uniform(num, 0.16, 0.23, generator) * SPRITE_INK
    inside = []
    for _ in range(2):
        middle = margin + half + _uniform(num, 0, 1, generator) * (SPRITE_INK - 2 * half)
        inside.append(((at - middle[:, None]).abs() < half[:, None]).float())
    return (inside[0][:, :, None] * inside[1][:, None, :])[:, None]


def _uniform(num: int, low: float, high: float, generator: torch.Generator) -> Tensor:
    return torch.rand(num, generator=generator) * (high - low) + low


def _tilt(num: int, generator: torch.Generator) -> Tensor:
    return _uniform(num, -0.2, 0.2, generator)


def _scale(num: int, generator: torch.Generator) -> Tensor:
    return _uniform(num, *INK, generator) / SPRITE_INK


def _color(num: int, generator: torch.Generator) -> Tensor:
    return torch.rand(num, 3, 1, 1, generator=generator) * 105 + 150


@lru_cache(maxsize=len(SPLITS))
def _digits_of(split: str) -> tuple[Tensor, Tensor]:
    """Opacities float32 [M, 1, SPRITE, SPRITE] and labels int64 [M] of the digits of `split`."""
    sprites, labels = digit_sprites()
    indices = digit_indices(split)
    return torch.from_numpy(sprites[indices])[:, None], torch.from_numpy(labels[indices])
