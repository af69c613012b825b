"""The scenes of the demo's action set: who acts, who drifts, what flies and how the camera moves.

One ACTOR digit performs a cyclic motion relative to the world; the label is (digit, motion). One or two DISTRACTOR
digits, drawn from the same images, sizes and colours, drift in a straight line. Confetti of more contrast than the
digits flies between them before a texture. The camera pans and shakes, which moves everything. So neither brightness,
nor local variance, nor frame difference finds the actor: the kind of motion does.

Digits are scikit-learn's `load_digits` (8x8, real handwriting), split into train, val and heldout by a fixed
permutation. Scene `index` of a split under a seed is a pure function of (seed, split, index).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from sklearn.datasets import load_digits

HEIGHT, WIDTH, NUM_FRAMES = 112, 150, 64
DIGITS = (0, 2, 3, 4, 6, 7)  # ascending; those that stay apart when they rock and change size
MOTIONS = ("swings", "bobs", "rocks", "pulses")  # sideways, up and down, turning to and fro, in size
CLASS_NAMES = tuple(f"{digit} {motion}" for digit in DIGITS for motion in MOTIONS)
NUM_CLASSES = len(CLASS_NAMES)

SPLITS = ("train", "val", "heldout")
SPLIT_SEED = 2024  # of the permutation that cuts scikit-learn's 1797 images
HELDOUT_IMAGES, VAL_IMAGES = 450, 150
SPRITE = 60  # side of a digit image after the smooth upscale of the padded 10x10 original
SPRITE_INK = 48  # side of the 8x8 ink area inside it
NUM_SPECKS, SPECK_SIDE = 18, (12, 16)
MARGIN = 24  # stage beyond the frame on every side, for the camera to move into


@dataclass(frozen=True)
class Actor:
    """A digit on the stage. Lengths in pixels of the frame, times in source frames, angles in radians."""

    alpha: np.ndarray  # float32 [SPRITE, SPRITE], opacity
    color: np.ndarray  # uint8 [3], RGB
    anchor: tuple[float, float]  # (x, y) in the world at frame 0
    velocity: tuple[float, float]  # pixels per frame; zero for the acting digit
    size: float  # side of the 8x8 ink area
    tilt: float
    shear: float
    motion: str | None  # one of MOTIONS, or None for a distractor
    amplitude: float
    period: float
    phase: float

    def pose(self, t: float) -> tuple[float, float, float, float]:
        """(x, y, angle, scale) in world coordinates at source frame `t`."""
        x = self.anchor[0] + self.velocity[0] * t
        y = self.anchor[1] + self.velocity[1] * t
        wave = self.amplitude * math.sin(2 * math.pi * t / self.period + self.phase)
        angle, scale = self.tilt, self.size / SPRITE_INK
        if self.motion == "swings":
            x += wave
        elif self.motion == "bobs":
            y += wave
        elif self.motion == "rocks":
            angle += wave
        elif self.motion == "pulses":
            scale *= 1.0 + wave
        return x, y, angle, scale


@dataclass(frozen=True)
class Scene:
    """Everything that is needed to draw any frame of one clip: background, specks, then `sprites`, the actor last."""

    label: int
    background: np.ndarray  # uint8 [HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN, 3]
    specks: np.ndarray  # float [K, 8]: x, y, velocity x, velocity y, side, red, green, blue
    sprites: tuple[Actor, ...]
    pan: tuple[float, float]  # camera velocity, pixels per frame
    shake: np.ndarray  # float [k, 4]: amplitude x, amplitude y, period, phase

    @property
    def digit(self) -> int:
        return DIGITS[self.label // len(MOTIONS)]

    @property
    def motion(self) -> str:
        return MOTIONS[self.label % len(MOTIONS)]

    def camera(self, t: float) -> tuple[float, float]:
        """Offset (x, y) of the world in the frame at source frame `t`; the pan is zero in mid clip."""
        wave = np.sin(2 * np.pi * t / self.shake[:, 2] + self.shake[:, 3])
        mid = t - NUM_FRAMES / 2
        return (
            self.pan[0] * mid + float(self.shake[:, 0] @ wave),
            self.pan[1] * mid + float(self.shake[:, 1] @ wave),
        )


@lru_cache(maxsize=1)
def digit_sprites() -> tuple[np.ndarray, np.ndarray]:
    """All 1797 digits as float32 opacities [1797, SPRITE, SPRITE], and their int64 labels [1797]."""
    data = load_digits()
    padded = np.pad(data.images.astype(np.float32) / 16.0, ((0, 0), (1, 1), (1, 1)))
    sprites = np.stack([cv2.resize(p, (SPRITE, SPRITE), interpolation=cv2.INTER_CUBIC) for p in padded])
    # A steeper edge than the cubic's, so that strokes read as solid ink rather than fog.
    return np.clip(sprites * 1.5 - 0.25, 0.0, 1.0), data.target.astype(np.int64)


@lru_cache(maxsize=len(SPLITS))
def digit_indices(split: str) -> np.ndarray:
    """Indices into scikit-learn's 1797 digits that belong to `split`, ascending. The splits are disjoint."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; one of {SPLITS}")
    order = np.random.default_rng(SPLIT_SEED).permutation(1797)
    cuts = {
        "heldout": order[:HELDOUT_IMAGES],
        "val": order[HELDOUT_IMAGES : HELDOUT_IMAGES + VAL_IMAGES],
        "train": order[HELDOUT_IMAGES + VAL_IMAGES :],
    }
    return np.sort(cuts[split])


@lru_cache(maxsize=64)
def _images_of(split: str, digit: int) -> np.ndarray:
    indices = digit_indices(split)
    return indices[digit_sprites()[1][indices] == digit]


def scene_rng(split: str, seed: int, index: int) -> np.random.Generator:
    """The generator that decides everything about clip `index` of `split`."""
    return np.random.default_rng([seed, SPLITS.index(split), index])


def make_scene(split: str, seed: int, index: int, label: int | None = None, difficulty: float = 1.0) -> Scene:
    """Draws up clip `index` of `split` under `seed`.

    Args:
        label: the class; None gives `index % NUM_CLASSES`, so that any run of NUM_CLASSES clips is balanced.
        difficulty: 0 (no distractors, faint background, still camera) to 1 (the task itself), for a curriculum.
    """
    rng = scene_rng(split, seed, index)
    label = index % NUM_CLASSES if label is None else label
    actor = _make_actor(rng, split, DIGITS[label // len(MOTIONS)], MOTIONS[label % len(MOTIONS)])
    distractors = []
    for slot in range(2):
        distractor = _make_distractor(rng, split, actor)
        present = (1.0, 0.5)[slot] * difficulty
        if rng.random() < present:
            distractors.append(distractor)
    background = _make_background(rng, contrast=0.25 + 0.75 * difficulty)
    angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.0, 0.45) * difficulty
    shake = np.column_stack(
        [
            rng.uniform(-1.2, 1.2, 2) * difficulty,
            rng.uniform(-1.2, 1.2, 2) * difficulty,
            rng.uniform(7, 13, 2),
            rng.uniform(0, 2 * np.pi, 2),
        ]
    )
    pan = (speed * math.cos(angle), speed * math.sin(angle))
    specks = _make_specks(rng)[: round(NUM_SPECKS * difficulty)]
    return Scene(label, background, specks, (*distractors, actor), pan, shake)


def _make_actor(rng: np.random.Generator, split: str, digit: int, motion: str) -> Actor:
    amplitude = {
        "swings": rng.uniform(8, 12),
        "bobs": rng.uniform(8, 12),
        "rocks": rng.uniform(0.65, 0.9),
        "pulses": rng.uniform(0.3, 0.42),
    }[motion]
    anchor = (WIDTH / 2 + rng.uniform(-22, 22), HEIGHT / 2 + rng.uniform(-22, 22))
    return Actor(
        **_look(rng, split, digit),
        anchor=anchor,
        velocity=(0.0, 0.0),
        motion=motion,
        amplitude=amplitude,
        period=rng.uniform(18, 28),
        phase=rng.uniform(0, 2 * np.pi),
    )


def _make_distractor(rng: np.random.Generator, split: str, actor: Actor) -> Actor:
    """A digit that drifts through the picture, on the path of a few tries that stays farthest from the actor."""
    tries = 6
    angle, speed = rng.uniform(0, 2 * np.pi, tries), rng.uniform(0.5, 1.4, tries)
    velocity_x, velocity_y = speed * np.cos(angle), speed * np.sin(angle)
    # Placed by where it is in mid clip, so that it is seen during most of it.
    x = rng.uniform(10, WIDTH - 10, tries) - velocity_x * NUM_FRAMES / 2
    y = rng.uniform(10, HEIGHT - 10, tries) - velocity_y * NUM_FRAMES / 2
    times = np.linspace(0, NUM_FRAMES, 9)[:, None]
    gaps = np.hypot(x + velocity_x * times - actor.anchor[0], y + velocity_y * times - actor.anchor[1]).min(axis=0)
    best = int(gaps.argmax())
    digit = DIGITS[rng.integers(len(DIGITS))]
    return Actor(
        **_look(rng, split, digit),
        anchor=(float(x[best]), float(y[best])),
        velocity=(float(velocity_x[best]), float(velocity_y[best])),
        motion=None,
        amplitude=0.0,
        period=1.0,
        phase=0.0,
    )


def _look(rng: np.random.Generator, split: str, digit: int) -> dict[str, Any]:
    """The attributes that actors and distractors draw from one and the same distribution."""
    images = _images_of(split, digit)
    color = rng.uniform(175, 255, 3)
    return {
        "alpha": digit_sprites()[0][images[rng.integers(len(images))]],
        "color": color.astype(np.uint8),
        "size": rng.uniform(28, 34),
        "tilt": rng.uniform(-0.15, 0.15),
        "shear": rng.uniform(-0.15, 0.15),
    }


def _make_background(rng: np.random.Generator, contrast: float) -> np.ndarray:
    """Coloured noise at four scales; uint8, larger than the frame by MARGIN on every side."""
    size = (WIDTH + 2 * MARGIN, HEIGHT + 2 * MARGIN)
    half = (size[0] // 2, size[1] // 2)  # summed at half size, which the finest cell of 4 pixels does not notice
    total = np.empty((half[1], half[0], 3), np.float32)
    total[:] = rng.uniform(75, 125, 3)
    for cell, strength in ((64, 22.0), (24, 20.0), (10, 18.0), (4, 12.0)):
        grid = rng.standard_normal((size[1] // cell + 2, size[0] // cell + 2, 3), dtype=np.float32)
        grid += rng.standard_normal((*grid.shape[:2], 1), dtype=np.float32)  # most of the texture is in luminance
        total += cv2.resize(grid * np.float32(strength * contrast), half, interpolation=cv2.INTER_LINEAR)
    return cv2.resize(np.clip(total, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)


def _make_specks(rng: np.random.Generator) -> np.ndarray:
    """Confetti that flies straight through behind the digits, with more contrast than they have; see `Scene.specks`."""
    angle, speed = rng.uniform(0, 2 * np.pi, NUM_SPECKS), rng.uniform(2.5, 4.5, NUM_SPECKS)
    return np.column_stack(
        [
            rng.uniform(0, WIDTH + 2 * MARGIN, NUM_SPECKS),
            rng.uniform(0, HEIGHT + 2 * MARGIN, NUM_SPECKS),
            speed * np.cos(angle),
            speed * np.sin(angle),
            rng.uniform(*SPECK_SIDE, NUM_SPECKS),
            rng.uniform(210, 255, (NUM_SPECKS, 3)),
        ]
    )
