"""The loop of a sweep: each video is decoded once, cut into views once, marked once by each proposal, and run by every
point that lacks it.

A point is an ordinary run with an ordinary store. Its `model_s` counts the shared work, the cutting of views and the
proposal's pass, as if the point had run alone: seconds measured once are added to every point that used them.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from vidprune.compiling import is_compiled
from vidprune.errors import ConfigError
from vidprune.evaluation.decoding import Decode, decode_all
from vidprune.evaluation.rows import BatchSize, RowWriter, failed_row, predicted_row
from vidprune.evaluation.runner import RunnerSettings, uploader_for
from vidprune.evaluation.store import PredictionStore, Row
from vidprune.evaluation.transport import Decoded
from vidprune.inference import ViewOutput, reader_for, run_batches, video_maps
from vidprune.pruning import is_pruned, token_grid
from vidprune.types import VideoFrames
from vidprune.video import ViewPlan, cut_views

if TYPE_CHECKING:
    from vidprune.evaluation.manifests import ManifestEntry

T = TypeVar("T")


@dataclass(frozen=True)
class SweepPoint:
    """One model of a sweep, with its views and its store.

    Attributes:
        map_key: points of one key have proposals that mark the same views alike, and share the maps.
        missing: positions of the manifest that this point is to evaluate.
    """

    name: str
    model: nn.Module
    plan: ViewPlan
    store: PredictionStore
    map_key: Hashable
    missing: frozenset[int]


def run_points(
    entries: Sequence[tuple[int, ManifestEntry]],
    points: Sequence[SweepPoint],
    settings: RunnerSettings,
    *,
    backend: str = "pyav",
    decode: Decode | None = None,
    on_video: Callable[[Row], None] | None = None,
) -> None:
    """Evaluate `entries` (position in the manifest, entry) at every point that misses them, one row each.

    A video that cannot be decoded is a failure at all of them. Models must be on one device, in one dtype.

    Args:
        decode: from a path to the frames of all plans; by default `reader_for` the models with `backend`.
        on_video: called once per video with its last row, for a progress bar.

    Raises:
        ConfigError: plans that no common decoding serves; not even one view fits the device's memory.
        StoreError: a store cannot be written.
    """
    decode = decode or reader_for([p.model for p in points], joint_plan([p.plan for p in points]), backend=backend)
    wanted = {position: entry for position, entry in entries if any(position in p.missing for p in points)}
    jobs = ((position, str(entry.path)) for position, entry in wanted.items())
    sizes = _Sizes(settings.views_per_batch or max(point.plan.num_views for point in points))
    with ExitStack() as stack:
        writers = [stack.enter_context(RowWriter(p.store, settings.flush_rows, settings.flush_s)) for p in points]
        prepare = uploader_for(points[0].model, settings)
        decoded = decode_all(decode, jobs, workers=settings.workers, timeout_s=settings.timeout_s, prepare=prepare)
        stack.enter_context(closing(decoded))  # ends the workers before the writers store what is left
        for item in decoded:
            row = None
            asked = [i for i, point in enumerate(points) if item.position in point.missing]
            rows = _rows(item, wanted[item.position], [points[i] for i in asked], sizes, settings.stored)
            for i, row in zip(asked, rows, strict=True):
                writers[i].add(row)
            if on_video is not None and row is not None:
                on_video(row)


def joint_plan(plans: Sequence[ViewPlan]) -> ViewPlan:
    """A plan that reads the frames of all `plans`.

    Raises:
        ConfigError: they want frames of different size, so that one decoding cannot serve them.
    """
    first, *others = dict.fromkeys(plans)
    for other in others:
        if (other.short_side, other.rounding) != (first.short_side, first.rounding):
            raise ConfigError(
                f"models of one sweep share each video's decoding, but one wants frames of {first.short_side} pixels "
                f"and another of {other.short_side}; sweep them apart"
            )
    return _JointPlan(**dataclasses.asdict(first), others=tuple(others)) if others else first


@dataclass(frozen=True)
class _JointPlan(ViewPlan):
    """A plan for reading alone: its own frames and those of others."""

    others: tuple[ViewPlan, ...] = ()

    def wanted_frames(self, num_frames_total: int) -> np.ndarray:
        frames = [super().wanted_frames(num_frames_total)]
        frames += [other.wanted_frames(num_frames_total) for other in self.others]
        return np.unique(np.concatenate(frames))


class _Sizes:
    """How many views share a pass, for each model and each proposal: they run out of memory at different sizes."""

    def __init__(self, views_per_batch: int) -> None:
        self.views_per_batch = views_per_batch
        self.known: dict[Hashable, BatchSize] = {}

    def has(self, key: Hashable) -> bool:
        return key in self.known

    def of(self, key: Hashable) -> BatchSize:
        return self.known.setdefault(key, BatchSize(self.views_per_batch))


def _rows(
    item: Decoded, entry: ManifestEntry, points: Sequence[SweepPoint], sizes: _Sizes, stored: str
) -> Iterator[Row]:
    """One row per point."""
    if item.video is None:
        yield from (failed_row(item, entry) for _ in points)
        return
    shared = _SharedWork(item.video, sizes)
    for point in points:
        output, seconds = shared.run(point)
        num_tokens = token_grid(point.model).num_tokens
        yield predicted_row(item, entry, output, num_tokens=num_tokens, model_s=seconds, stored=stored)


@dataclass
class _SharedWork:
    """The views of one video and the maps of its proposals, each made when a point first needs it, with its seconds."""

    video: VideoFrames
    sizes: _Sizes
    views: dict[ViewPlan, tuple[Tensor, float]] = field(default_factory=dict)
    maps: dict[Hashable, tuple[Tensor | None, float]] = field(default_factory=dict)

    def run(self, point: SweepPoint) -> tuple[ViewOutput, float]:
        """What the point's model makes of all views, and the seconds it would have taken alone."""
        device = next(point.model.parameters()).device
        if point.plan not in self.views:
            self.views[point.plan] = _timed(lambda: self._cut(point), device)
        clips, cut_s = self.views[point.plan]
        if not self.sizes.has(point.name):  # the first pass of a model pays for set-up that no other does
            # A compiled model is warmed up by its full batch, which its graph is made for.
            self._warm_up(point, clips if is_compiled(point.model) else clips[:1])
        key = (point.plan, point.map_key)
        if key not in self.maps:
            self.maps[key] = _timed(lambda: self._mark(point, clips), device)
        maps, mark_s = self.maps[key]
        output, run_s = _timed(lambda: self._predict(point, clips, maps), device)
        return output, cut_s + mark_s + run_s

    def _warm_up(self, point: SweepPoint, clips: Tensor) -> None:
        maps = self._mark(point, clips)
        self._predict(point, clips, None if maps is None else maps[: len(clips)])  # some proposals mark whole videos

    def _cut(self, point: SweepPoint) -> Tensor:
        like = next(point.model.parameters())
        return cut_views(self.video, point.plan, device=like.device, dtype=like.dtype)  # [V, 3, T, H, W]

    @torch.inference_mode()
    def _mark(self, point: SweepPoint, clips: Tensor) -> Tensor | None:
        """Proposal maps [V, t', h', w'] of all views, or None where the model asks no proposal."""
        of_video = video_maps([self.video], point.model, point.plan)
        proposal = point.model.proposal if is_pruned(point.model) else None
        if of_video is not None or proposal is None:
            return None if of_video is None else of_video[0]
        grid = token_grid(point.model)

        def mark(size: int) -> Tensor:
            return torch.cat([proposal(part, grid=grid) for part in clips.split(size)])

        return self.sizes.of((point.plan, point.map_key)).run(mark, len(clips))

    def _predict(self, point: SweepPoint, clips: Tensor, maps: Tensor | None) -> ViewOutput:
        def predict(size: int) -> ViewOutput:
            parts = clips.split(size)
            batches = zip(parts, _split(maps, size, len(parts)), strict=True)
            return run_batches(point.model, batches).to_host()

        return self.sizes.of(point.name).run(predict, len(clips))


def _split(maps: Tensor | None, size: int, num_parts: int) -> Sequence[Tensor | None]:
    return [None] * num_parts if maps is None else maps.split(size)


def _timed(work: Callable[[], T], device: torch.device) -> tuple[T, float]:
    """What `work` gives, and its seconds; what was queued on the device before is not counted."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return result, time.perf_counter() - start
