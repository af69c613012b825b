"""The codec's motion as a proposal: no network, no second look at the pixels; the encoder has searched already."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from vidprune.errors import ConfigError, unknown_name
from vidprune.proposals.base import ClipShape, VideoProposal
from vidprune.types import TokenGrid, VideoFrames
from vidprune.video import ViewPlan
from vidprune.video.motion import CELL
from vidprune.video.upload import to_device
from vidprune.video.views import clip_rows

COMPENSATIONS = ("median", "affine", "none")


class CodecMotionProposal(VideoProposal):
    """Tokens whose content moves against the camera first.

    A token scores the mean speed, over its frames and its share of each macroblock, that is left after the camera's own
    motion is taken away. A frame without vectors (a key frame) takes the field of the nearest frame that was read with
    some, the earlier on a tie; an intra block in another frame counts as moving with the camera: the encoder found no
    motion there, which is no evidence of any. A video without any vector scores every token alike.

    Args:
        compensation: the camera's motion in a frame. "median": of all its cells, per direction; "affine": a straight
            line in x and y through them, fitted twice, the second time to the better half; "none": it stands still.
    """

    name = "codec_motion"
    checkpoint_source = "no weights"
    needs_motion = True

    def __init__(self, compensation: str = "median") -> None:
        super().__init__()
        if compensation not in COMPENSATIONS:
            raise unknown_name("compensation", compensation, COMPENSATIONS)
        self.compensation = compensation

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        raise ConfigError(
            "proposal 'codec_motion' reads a file's motion vectors and cannot work on pixels alone: use predict_video, "
            "or read_video(..., motion=True) and give the result of view_maps as proposal_map"
        )

    def gmacs(self, clip_shape: ClipShape) -> float:
        return 0.0

    def view_maps(
        self, video: VideoFrames, plan: ViewPlan, *, grid: TokenGrid, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        if video.motion is None:
            raise ConfigError(
                "proposal 'codec_motion' needs a video read with motion vectors: read_video(..., motion=True)"
            )
        if plan.num_frames % grid.t:
            raise ConfigError(f"clips of {plan.num_frames} frames do not divide into {grid.t} steps of the token grid")
        speed = own_speed(fill_gaps(video.motion), self.compensation)  # [F, h16, w16]
        clips = speed[clip_rows(video, plan)]  # [S, T, h16, w16]
        steps = clips.reshape(len(clips), grid.t, -1, *speed.shape[1:]).mean(axis=2)  # [S, t, h16, w16]
        maps = [crop_mean(steps, video, offset, plan.crop_size, grid) for offset in plan.crop_offsets(*video.size)]
        views = np.stack(maps, axis=1).reshape(plan.num_views, *grid.shape)  # [S, crops, t, h, w] -> [V, t, h, w]
        return to_device(views.astype(np.float32), device)


def fill_gaps(motion: np.ndarray) -> np.ndarray:
    """Motion [F, h16, w16, 2]: frames without any vector repeat the nearest one with some; other NaN cells stay NaN."""
    known = np.flatnonzero(~np.isnan(motion).all(axis=(1, 2, 3)))
    if not known.size:
        return motion
    frames = np.arange(len(motion))
    nearest = known[np.abs(frames[:, None] - known[None, :]).argmin(axis=1)]  # argmin takes the first, the earlier one
    return motion[nearest]


def own_speed(motion: np.ndarray, compensation: str) -> np.ndarray:
    """Pixels per frame of each cell against the camera, float64 [F, h16, w16]; 0 where the codec gave no vector."""
    frames, height, width, _ = motion.shape
    cells = motion.reshape(frames, -1, 2).astype(np.float64)
    known = ~np.isnan(cells[..., 0])  # [F, cells]
    if compensation == "median":
        cells -= _median(cells, known)[:, None]
    elif compensation == "affine":
        for frame in np.flatnonzero(known.sum(axis=1) >= 6):  # six unknowns; with fewer cells the camera stands still
            cells[frame] -= _affine(cells[frame], known[frame], (height, width))
    speed = np.where(known, np.hypot(cells[..., 0], cells[..., 1]), 0.0)
    return speed.reshape(frames, height, width)


def _median(cells: np.ndarray, known: np.ndarray) -> np.ndarray:
    """The median of each frame's known cells, per direction: [F, cells, 2] -> [F, 2]; NaN without any."""
    ordered = np.sort(cells, axis=1)  # NaN comes last
    count = np.maximum(known.sum(axis=1), 1)
    frames = np.arange(len(cells))
    return (ordered[frames, (count - 1) // 2] + ordered[frames, count // 2]) / 2


def _affine(cells: np.ndarray, known: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """One frame's motion if it were the camera's alone, [cells, 2]: affine in x and y, fitted to the better half."""
    y, x = np.divmod(np.arange(len(cells)), shape[1])
    places = np.stack([np.ones(len(cells)), x / shape[1], y / shape[0]], axis=1)  # [cells, 3]
    chosen = known
    for _ in range(2):
        fit = np.linalg.lstsq(places[chosen], cells[chosen], rcond=None)[0]  # [3, 2]
        gap = np.linalg.norm(cells - places @ fit, axis=1)
        chosen = known & (gap <= np.median(gap[known]))
    return places @ fit


def crop_mean(
    steps: np.ndarray, video: VideoFrames, offset: tuple[int, int], crop_size: int, grid: TokenGrid
) -> np.ndarray:
    """Means of `steps` [S, t, h16, w16] over each token's pixels in one crop: [S, t, h, w]."""
    rows, columns = (
        overlap(cells, source, resized, start, crop_size, tokens)
        for cells, source, resized, start, tokens in zip(
            steps.shape[2:], video.source_size, video.size, offset, (grid.h, grid.w), strict=True
        )
    )
    return rows @ steps @ columns.T


def overlap(cells: int, source: int, resized: int, start: int, crop_size: int, tokens: int) -> np.ndarray:
    """Along one axis, the share of each token's pixels that each macroblock covers, float64 [tokens, cells].

    Macroblock i covers source pixels 16 i to 16 (i + 1), cut at the frame's edge, and as many resized ones in scale.
    """
    edges = np.minimum(np.arange(cells + 1) * CELL, source) * (resized / source)
    bounds = start + np.linspace(0, crop_size, tokens + 1)
    shared = np.minimum(bounds[1:, None], edges[None, 1:]) - np.maximum(bounds[:-1, None], edges[None, :-1])
    return np.maximum(shared, 0) / np.diff(bounds)[:, None]
