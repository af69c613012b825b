"""A sweep from its config: every point's model around one shared host, its store, the loop, the reports."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.config import (
    EvaluateConfig,
    PointConfig,
    RunConfig,
    SweepConfig,
    build_host,
    build_methods,
    build_views,
    expand,
    runner_settings,
    share_proposals,
)
from vidprune.evaluation.compare import write_comparison
from vidprune.evaluation.comparison import Comparison
from vidprune.evaluation.files import write_run_files
from vidprune.evaluation.report import EvaluationReport
from vidprune.evaluation.store import PredictionStore, Row
from vidprune.evaluation.sweep import SweepPoint, joint_plan, run_points
from vidprune.inference import reader_for
from vidprune.runs.evaluating import manifest_of, missing_positions, own_device, own_entries
from vidprune.runs.header import header_facts, run_identity

if TYPE_CHECKING:
    from torch import nn

    from vidprune.evaluation.decoding import Decode
    from vidprune.evaluation.manifests import Manifest
    from vidprune.proposals.base import Proposal

AFTER_THE_MAP = ("keep_ratio", "mass", "min_keep_ratio", "max_keep_ratio", "align_corners")
"""Fields of a method that act on its proposal's map and do not change it."""


@dataclass(frozen=True)
class SweepReport:
    """What a sweep left in its folder `out`: table.md, table.csv, report.html, and a run under points/ for each point.

    Attributes:
        comparison: the points beside each other, each model's dense one first.
    """

    out: str
    comparison: Comparison

    @property
    def reports(self) -> tuple[EvaluationReport, ...]:
        """The figures of every point."""
        return tuple(run.report for run in self.comparison.runs)

    @property
    def is_complete(self) -> bool:
        """Every listed video has a row at every point."""
        return all(report.is_complete for report in self.reports)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        points = [run.as_dict() for run in self.comparison.runs]
        return {"out": self.out, "is_complete": self.is_complete, "points": points}


def sweep(
    config: SweepConfig,
    *,
    decode: Decode | None = None,
    on_start: Callable[[int, int, Sequence[str]], None] | None = None,
    on_video: Callable[[Row], None] | None = None,
) -> SweepReport:
    """Evaluate all points of a sweep into OUT/points/NAME, decoding each video once, and compare them.

    Every point is an ordinary run: `vidprune report` reads it, the same sweep goes on where it was stopped, and a video
    is decoded again only if a point lacks it. Under `torchrun` every process takes its share of the videos.

    Args:
        decode: instead of the decoder that the config names; from a path to its frames.
        on_start: called with how many videos this process will decode, how many are done, and the list's warnings.
        on_video: called once per video, with its row at the last point.

    Raises:
        ConfigError: an option or a label out of range, an unreadable manifest, models that want frames of another size.
        StoreError: a folder holds another run, or cannot be written.
    """
    shared = config.evaluation
    settings = runner_settings(shared)
    shared = dataclasses.replace(shared, run=dataclasses.replace(shared.run, device=own_device(shared.run.device)))
    built = list(_built_points(dataclasses.replace(config, evaluation=shared)))
    # Before anything is written: it refuses models of different frame sizes.
    plan = joint_plan([point.plan for point in built])
    manifests: dict[Hashable, Manifest] = {}
    opened = [_opened(point, shared, manifests) for point in built]
    points = [point for point, _ in opened]
    manifest = opened[0][1]
    entries = own_entries(manifest)
    missing = frozenset().union(*(point.missing for point in points))
    if on_start is not None:
        on_start(len(missing), len(entries) - len(missing), manifest.warnings)
    if decode is None:
        models = [point.model for point in points]
        decode = reader_for(models, plan, backend=shared.run.backend, colour=shared.run.colour)
    run_points(entries, points, settings, decode=decode, on_video=on_video)
    folders = [point.store.folder for point in points]
    return SweepReport(shared.out, write_comparison(folders, Path(shared.out), write_run_files))


@dataclass(frozen=True)
class _Built:
    """A point whose model is there, and whose store is not opened yet."""

    config: PointConfig
    model: nn.Module
    plan: Any
    map_key: Hashable


def _built_points(config: SweepConfig) -> Iterator[_Built]:
    """Every point, the points of a model around one host, and equal proposals one object."""
    import torch

    from vidprune.compiling import compile_model
    from vidprune.pruning import is_pruned, prune

    proposals: dict[Hashable, Proposal] = {}
    run = config.evaluation.run
    for _, group in itertools.groupby(expand(config), key=lambda point: point.run.model):
        points = list(group)
        host = build_host(points[0].run).to(device=run.device, dtype=getattr(torch, run.dtype)).eval()
        for point in points:
            methods = share_proposals(build_methods(point.run.method, point.run.model), proposals)
            torch.manual_seed(run.seed)
            model = prune(host, methods) if methods else host
            model = model.to(device=run.device, dtype=getattr(torch, run.dtype)).eval()
            model = compile_model(model) if run.compile else model
            asks = is_pruned(model) and model.proposal is not None
            key = (_map_key(methods[0]), id(host)) if asks else None
            yield _Built(point, model, build_views(point.run, model), key)


def _map_key(method: Any) -> Hashable:
    """Everything of a method that its proposal's map depends on."""
    fields = ((f.name, getattr(method, f.name)) for f in dataclasses.fields(method) if f.name not in AFTER_THE_MAP)
    return (type(method), *((name, tuple(v) if isinstance(v, list) else v) for name, v in fields))


def _opened(point: _Built, shared: EvaluateConfig, manifests: dict[Hashable, Manifest]) -> tuple[SweepPoint, Manifest]:
    """The point with its store, a new one or one of the same identity; the list of videos is read once per model."""
    from vidprune.pruning import host_of

    run: RunConfig = point.config.run
    own = dataclasses.replace(shared, run=run, out=str(Path(shared.out) / "points" / point.config.name))
    if run.model not in manifests:
        manifests[run.model] = manifest_of(own, run, int(host_of(point.model).num_classes))
    manifest = manifests[run.model]
    identity = run_identity(own, run, point.plan, manifest)
    store = PredictionStore.create_or_resume(own.out, identity, header_facts(own, run, point.model, manifest))
    missing = missing_positions(own_entries(manifest), store.chosen_rows(), shared.retry_failed)
    return SweepPoint(point.config.name, point.model, point.plan, store, point.map_key, missing), manifest
