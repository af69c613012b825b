"""What the demo's models are trained on: the stages of the curriculum, and an endless stream of batches."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from digit_images import digit_images
from digit_scenes import HEIGHT, MOTIONS, NUM_FRAMES, SPLITS, WIDTH, make_scene
from render_digits import render
from torch import Tensor

from vidprune.models.videomae import VIDEOMAE_SPECS

SPEC = VIDEOMAE_SPECS["videomae_tiny"]
FRAME_STRIDE = 4
SPAN = SPEC.num_frames * FRAME_STRIDE  # source frames of one clip
MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)


@dataclass(frozen=True)
class Recipe:
    """Optimisation settings of one model, and how many samples it sees in each stage before the whole crops."""

    image_samples: int  # single tubelets of one digit, for the digit alone
    zoom_clips: int  # windows around the actor
    ramp_clips: int  # whole crops of easier scenes
    mixed: bool  # whether every other step goes on with windows
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.05
    warmup_steps: int = 100
    ema_decay: float = 0.998
    decay_clips: int = 24_000  # at the end of training, over which the learning rate falls to zero

    def is_decaying(self, seen: int, total_clips: int) -> bool:
        """Whether this is the last phase: plain classification of whole crops, dense."""
        return total_clips - seen <= self.decay_clips


RECIPES = {
    "videomae": Recipe(
        image_samples=96_000, zoom_clips=24_000, ramp_clips=16_000, mixed=True, batch_size=16, learning_rate=1e-3
    ),
    "x3d": Recipe(
        image_samples=0,
        zoom_clips=42_000,
        ramp_clips=16_000,
        mixed=False,
        ema_decay=0.99,
        batch_size=32,
        learning_rate=3e-3,
    ),
}


@dataclass(frozen=True)
class Stage:
    """What a model sees at one moment of its curriculum: `patches` is the side of the window, `tubelets` its length."""

    difficulty: float
    patches: int
    tubelets: int

    @property
    def side(self) -> int:
        return self.patches * SPEC.tubelet[1]


def stage_at(recipe: Recipe, seen: int, step: int, total_clips: int) -> Stage:
    """Single tubelets first, then clips in windows around the actor, then whole crops; each from easy to hard.

    A ViT goes on seeing windows at every other step until the final decay: they cost it a third of a whole crop.
    """
    decaying = recipe.is_decaying(seen, total_clips)
    if seen < recipe.image_samples:
        return Stage(min(seen / (0.6 * recipe.image_samples), 1.0), 3, 1)
    seen -= recipe.image_samples
    if seen < recipe.zoom_clips:
        return Stage(seen / recipe.zoom_clips, 4, SPEC.grid.t)
    seen -= recipe.zoom_clips
    patches = 4 if recipe.mixed and step % 2 and not decaying else SPEC.grid.h
    return Stage(min(0.4 + 0.6 * seen / recipe.ramp_clips, 1.0), patches, SPEC.grid.t)


def training_clip(seed: int, index: int, stage: Stage) -> tuple[np.ndarray, int, Tensor]:
    """Clip `index` of the endless training stream, at a random start and place.

    Returns:
        frames uint8 [T, side, side, 3], the label, and the actor's opacity per token float32 [n].
    """
    scene = make_scene("train", seed, index, difficulty=stage.difficulty)
    rng = np.random.default_rng([seed, len(SPLITS), index])
    start = int(rng.integers(0, NUM_FRAMES - SPAN + 1))
    top, left = 0, int(rng.integers(0, WIDTH - HEIGHT + 1))
    if stage.side < HEIGHT:
        camera_x, camera_y = scene.camera(start + SPAN / 2)
        anchor_x, anchor_y = scene.sprites[-1].anchor
        left = int(anchor_x + camera_x + rng.uniform(-8, 8)) - stage.side // 2
        top = int(anchor_y + camera_y + rng.uniform(-8, 8)) - stage.side // 2
    frames, mask = render(scene, range(start, start + SPAN, FRAME_STRIDE), top, left, stage.side, stage.side)
    if rng.random() < 0.3:  # block and ringing noise like a video codec's
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 90))]
        frames = np.stack([cv2.imdecode(cv2.imencode(".jpg", f, quality)[1], cv2.IMREAD_COLOR) for f in frames])
    return frames, scene.label, opacity_per_token(mask)


def opacity_per_token(mask: np.ndarray) -> Tensor:
    """Mean opacity of the actor in each token, float32 [t * h * w] in 0-255, of masks uint8 [T, H, W]."""
    return F.avg_pool3d(torch.from_numpy(mask).float()[None], SPEC.tubelet).flatten()


def normalise(clip: Tensor) -> Tensor:
    return (clip / 255 - MEAN.to(clip.device)) / STD.to(clip.device)


Batch = tuple[Tensor, Tensor, Tensor | None]


def training_batch(seed: int, first: int, size: int, stage: Stage) -> Batch:
    """Samples `first` to `first + size` of the stream: 0-255 [B, 3, T, side, side], labels [B], opacities [B, n]."""
    if stage.tubelets == 1:
        generator = torch.Generator().manual_seed(seed * 10**9 + first)
        frames, digits = digit_images(size, stage.side, stage.difficulty, generator)
        return frames, digits * len(MOTIONS), None
    clips, labels, masks = zip(*(training_clip(seed, first + i, stage) for i in range(size)), strict=True)
    return torch.from_numpy(np.stack(clips)).permute(0, 4, 1, 2, 3), torch.tensor(labels), torch.stack(masks)


def batches(recipe: Recipe, seed: int, seen: int, step: int, total_clips: int) -> Iterator[tuple[Stage, Batch]]:
    """The stream from sample `seen` on, drawn by one other process while the caller trains on the batch before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=_one_thread) as worker:
        waiting: deque[tuple[Stage, Future[Batch]]] = deque()
        while True:
            while len(waiting) < 3:
                stage = stage_at(recipe, seen, step, total_clips)
                waiting.append((stage, worker.submit(training_batch, seed, seen, recipe.batch_size, stage)))
                seen, step = seen + recipe.batch_size, step + 1
            stage, future = waiting.popleft()
            yield stage, future.result()


def _one_thread() -> None:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def validation_set(num_clips: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Renders from the validation digits: frames uint8, labels, and actor opacity per token float32 [B, N]."""
    frames, labels, masks = [], [], []
    for index in range(num_clips):
        scene = make_scene("val", seed, index)
        start, left = (index * 7) % 33, (index * 11) % (WIDTH - HEIGHT + 1)
        clip, mask = render(scene, range(start, start + 32, FRAME_STRIDE), 0, left, HEIGHT, HEIGHT)
        frames.append(clip)
        labels.append(scene.label)
        masks.append(opacity_per_token(mask).numpy())
    return np.stack(frames), np.array(labels), np.stack(masks)
