"""The demo: dense, PaPr and the controls side by side on clips whose acting digit is known pixel by pixel.

Each clip is decoded once and its views are shared by every method; the same functions measure the shipped clips
(`vidprune demo`) and larger rendered sets (`tools/measure_demo.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vidprune.config import DEMO, ModelConfig, RunConfig, build_method, build_model, demo_file
from vidprune.errors import ConfigError
from vidprune.evaluation.metrics import wilson_interval
from vidprune.inference import reader_for, run_views, video_maps
from vidprune.profiling.flops import flops
from vidprune.pruning import PrunedViT, prune, token_grid
from vidprune.tokens.select import keep_mask
from vidprune.types import VideoFrames
from vidprune.video import ViewPlan, cut_views

METHODS = ("papr", "random", "frame_difference")
KEEP_RATIOS = (0.7, 0.5, 0.3)
MASK_SCALE = 4  # the actor masks are stored at a quarter of the frames' resolution


@dataclass(frozen=True)
class DemoClip:
    """One clip: its file, its class, and the acting digit's coverage uint8 [F, h, w] at a quarter of the resolution."""

    path: Path
    label: int
    mask: np.ndarray


@dataclass(frozen=True)
class Variant:
    """One row of the table: a name, a keep ratio (1 for dense) and the model that runs it."""

    method: str
    keep_ratio: float
    model: nn.Module


@dataclass(frozen=True)
class ClipResult:
    """What one variant made of one clip. Seconds are for all views, proposal included; the share is the proposal's."""

    method: str
    keep_ratio: float
    correct: bool
    actor_coverage: float
    seconds: float
    proposal_seconds: float


@dataclass(frozen=True)
class DemoRow:
    """One variant over all clips.

    Attributes:
        top1, top1_low, top1_high: accuracy of the view-averaged predictions and its 95 % Wilson interval.
        actor_coverage: share of the acting digit's pixels inside kept tubelets, mean over clips.
        total_gmacs: per view, proposal included.
        speed_up: dense time over this variant's, both summed over the clips, proposal included.
        proposal_share: of this variant's time.
    """

    method: str
    keep_ratio: float
    num_kept: int
    num_clips: int
    top1: float
    top1_low: float
    top1_high: float
    actor_coverage: float
    total_gmacs: float
    proposal_gmacs: float
    ms_per_view: float
    speed_up: float
    proposal_share: float


def load_clips(folder: Path | None = None) -> list[DemoClip]:
    """The labelled clips of a rendered folder (labels.csv, masks.npz); the shipped ones by default."""
    import pandas as pd

    folder = folder or demo_file("clips")
    try:
        labels = pd.read_csv(folder / "labels.csv")
        with np.load(folder / "masks.npz", allow_pickle=False) as masks:
            return [
                DemoClip(folder / row.file, int(row.label), masks[Path(row.file).stem]) for row in labels.itertuples()
            ]
    except (OSError, KeyError, AttributeError) as error:
        raise ConfigError(f"{folder} is not a rendered demo set (labels.csv and masks.npz): {error}") from None


def build_variants(
    methods: Sequence[str] = METHODS, keep_ratios: Sequence[float] = KEEP_RATIOS, *, seed: int = 0
) -> list[Variant]:
    """Dense first, then every method at every keep ratio around one shared host. `seed` is the random control's."""
    host = build_model(RunConfig(model=ModelConfig(DEMO), device="cpu"))
    variants = [Variant("dense", 1.0, host)]
    for method in methods:
        for keep_ratio in keep_ratios:
            fields = {"name": method, "keep_ratio": keep_ratio} | ({"seed": seed} if method == "random" else {})
            config = build_method(fields, ModelConfig(DEMO))
            assert config is not None  # "dense" is not among the methods
            variants.append(Variant(method, keep_ratio, prune(host, config).eval()))
    return variants


def evaluate_clips(
    clips: Iterable[DemoClip], variants: Sequence[Variant], plan: ViewPlan
) -> Iterator[list[ClipResult]]:
    """For each clip, one result per variant, timed in turn on the same views."""
    warm = False
    read = reader_for([variant.model for variant in variants], plan)
    for clip in clips:
        video = read(clip.path)
        views = cut_views(video, plan)  # [V, 3, T, H, W]
        actor = actor_per_token(clip.mask, video.num_frames_total, video.size, plan, variants[0].model)
        if not warm:
            for variant in variants:
                _evaluate(variant, video, plan, views, actor, clip.label)
            warm = True
        yield [_evaluate(variant, video, plan, views, actor, clip.label) for variant in variants]


def summarise(results: Sequence[Sequence[ClipResult]], variants: Sequence[Variant], num_views: int) -> list[DemoRow]:
    """One row per variant from the results of `evaluate_clips`."""
    rows = []
    dense_seconds = sum(clip[0].seconds for clip in results)
    for i, variant in enumerate(variants):
        column = [clip[i] for clip in results]
        seconds = sum(r.seconds for r in column)
        correct = sum(r.correct for r in column)
        low, high = wilson_interval(correct, len(column))
        cost = flops(variant.model)
        rows.append(
            DemoRow(
                method=variant.method,
                keep_ratio=variant.keep_ratio,
                num_kept=cost.token_counts[0],
                num_clips=len(column),
                top1=correct / len(column),
                top1_low=low,
                top1_high=high,
                actor_coverage=float(np.mean([r.actor_coverage for r in column])),
                total_gmacs=cost.total_gmacs,
                proposal_gmacs=cost.proposal_gmacs,
                ms_per_view=1e3 * seconds / (len(column) * num_views),
                speed_up=dense_seconds / seconds,
                proposal_share=sum(r.proposal_seconds for r in column) / seconds,
            )
        )
    return rows


def actor_per_token(
    mask: np.ndarray, num_frames: int, frame_size: tuple[int, int], plan: ViewPlan, host: nn.Module
) -> Tensor:
    """How much of the acting digit each token of each view holds, float [V, N], from a mask [F, h, w]."""
    if len(mask) != num_frames:
        raise ConfigError(f"the mask has {len(mask)} frames, the video {num_frames}")
    grid = token_grid(host)
    full = mask.repeat(MASK_SCALE, axis=1).repeat(MASK_SCALE, axis=2)[:, : frame_size[0], : frame_size[1]]
    size, rows = plan.crop_size, []
    for numbers in plan.frame_indices(num_frames):
        for top, left in plan.crop_offsets(*frame_size):
            crop = full[numbers, top : top + size, left : left + size].astype(np.float32)  # [T, crop, crop]
            t, h, w = (n // g for n, g in zip(crop.shape, grid.shape, strict=True))
            rows.append(crop.reshape(grid.t, t, grid.h, h, grid.w, w).sum(axis=(1, 3, 5)).reshape(-1))
    return torch.from_numpy(np.stack(rows))


@torch.inference_mode()
def _evaluate(
    variant: Variant, video: VideoFrames, plan: ViewPlan, views: Tensor, actor: Tensor, label: int
) -> ClipResult:
    start = time.perf_counter()
    maps = video_maps([video], variant.model, plan)
    map_seconds = time.perf_counter() - start
    logits, trace = run_views(variant.model, views, None if maps is None else maps[0])
    seconds = time.perf_counter() - start
    coverage = 1.0
    if trace is not None and trace.kept_index is not None:
        seen = actor.sum()
        kept = keep_mask(trace.kept_index, actor.shape[1])
        coverage = float((actor * kept).sum() / seen) if seen > 0 else float("nan")
    predicted = int(logits.float().softmax(dim=1).mean(dim=0).argmax())
    return ClipResult(
        variant.method,
        variant.keep_ratio,
        predicted == label,
        coverage,
        seconds,
        map_seconds if maps is not None else _proposal_seconds(variant.model, views),
    )


def _proposal_seconds(model: nn.Module, views: Tensor) -> float:
    proposal = model.proposal if isinstance(model, PrunedViT) else None
    if proposal is None:
        return 0.0
    start = time.perf_counter()
    proposal(views, grid=model.token_grid)
    return time.perf_counter() - start
