"""What is wrong with a config, found before anything runs: names, files, the manifest, and every model from shapes."""

from __future__ import annotations

import inspect
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.config.building import (
    build_methods,
    build_views,
    demo_file,
    demo_or_path,
    resolve_device,
    runner_settings,
    share_proposals,
    without_weights,
)
from vidprune.config.classes import DEMO, EvaluateConfig, RunConfig
from vidprune.config.points import PointConfig, expand
from vidprune.config.reading import kind_of, parse_config, parse_evaluation, parse_sweep
from vidprune.errors import ConfigError, VidpruneError

if TYPE_CHECKING:
    from torch import nn

    from vidprune.proposals.base import Proposal


@dataclass
class ConfigCheck:
    """What `check_config` found.

    Attributes:
        verb: "run", "evaluate" or "sweep", what the config is for.
        points: the runs that it describes, by name; one, called "run", unless it is a sweep.
        evaluation: the videos and the folder, unless it is a run's.
        problems: one line each; the config cannot be used.
        warnings: one line each; it can, but may not do what is meant.
    """

    verb: str
    points: tuple[PointConfig, ...] = ()
    evaluation: EvaluateConfig | None = None
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check_config(data: Mapping[str, Any], *, source: str = "config") -> ConfigCheck:
    """Check the mapping of a config file. What cannot be parsed at all is the only problem that is named then."""
    check = ConfigCheck(kind_of(data))
    with _noting(check.problems):
        check.points, check.evaluation = _parse(check.verb, data, source)
    hosts: dict[Hashable, nn.Module] = {}
    proposals: dict[Hashable, Proposal] = {}
    for point in check.points:
        for note in (_check_checkpoint, _check_proposal_checkpoint, _check_names, _check_device):
            with _noting(check.problems):
                note(point.run, check.warnings)
        with _noting(check.problems, prefix=f"{point.name}: " if check.verb == "sweep" else ""):
            _check_objects(point.run, hosts, proposals)
    if check.evaluation is not None and check.points:
        with _noting(check.problems):
            runner_settings(check.evaluation)
        with _noting(check.problems):
            _check_manifest(check.evaluation, check.points[0].run, check)
    check.problems, check.warnings = list(dict.fromkeys(check.problems)), list(dict.fromkeys(check.warnings))
    return check


@contextmanager
def _noting(problems: list[str], prefix: str = "") -> Iterator[None]:
    """Turns an error of this package inside it into a line of `problems`."""
    try:
        yield
    except VidpruneError as error:
        problems.append(f"{prefix}{error}")


def _parse(verb: str, data: Mapping[str, Any], source: str) -> tuple[tuple[PointConfig, ...], EvaluateConfig | None]:
    if verb == "sweep":
        sweep = parse_sweep(data, source=source)
        return tuple(expand(sweep)), sweep.evaluation
    if verb == "evaluate":
        evaluation = parse_evaluation(data, source=source)
        return (PointConfig("run", evaluation.run),), evaluation
    return (PointConfig("run", parse_config(data, source=source)),), None


def _check_checkpoint(run: RunConfig, warnings: list[str]) -> None:
    checkpoint = str(demo_file("videomae_tiny.safetensors")) if run.model.name == DEMO else run.model.checkpoint
    if checkpoint is None:
        warnings.append(f"model {run.model.name} has no checkpoint: its weights are random")
    else:
        _require_file("checkpoint", checkpoint)


def _check_proposal_checkpoint(run: RunConfig, warnings: list[str]) -> None:
    for method in build_methods(run.method, run.model):
        proposal, checkpoint = (getattr(method, name, None) for name in ("proposal", "proposal_checkpoint"))
        if checkpoint is not None:
            _require_file("proposal_checkpoint", checkpoint)
        elif isinstance(proposal, str) and _has_weights(proposal):
            warnings.append(f"proposal {proposal} has no proposal_checkpoint: its weights are random")


def _has_weights(proposal: str) -> bool:
    from vidprune.proposals import PROPOSALS

    family = proposal if proposal in PROPOSALS else proposal.partition(":")[0]
    return "checkpoint" in inspect.signature(PROPOSALS.get(family)).parameters


def _require_file(what: str, path: str) -> None:
    if not Path(path).exists():
        raise ConfigError(f"{what} {path} does not exist; relative paths start from the current folder, {Path.cwd()}")


def _check_names(run: RunConfig, warnings: list[str]) -> None:
    from vidprune.evaluation.label_order import check_class_names
    from vidprune.labels import class_names

    if run.class_names is None:
        return
    names = class_names(run.class_names, _num_classes(run))
    order = check_class_names(names)
    if order.status == "disagrees":
        warnings.append(order.text)


def _num_classes(run: RunConfig) -> int | None:
    """How many the model has; None where its checkpoint will tell."""
    by_weights = run.model.checkpoint is not None or run.model.name == DEMO
    return run.model.num_classes or (None if by_weights else 400)


def _check_device(run: RunConfig, warnings: list[str]) -> None:
    from vidprune.video import VIDEO_BACKENDS

    if run.backend not in VIDEO_BACKENDS:
        VIDEO_BACKENDS.describe(run.backend)  # raises with the nearest names, and imports no decoder
    resolve_device(run.device)


def _check_objects(run: RunConfig, hosts: dict[Hashable, nn.Module], proposals: dict[Hashable, Proposal]) -> None:
    """Build model, method and views from shapes alone."""
    import torch

    from vidprune.models import create_model
    from vidprune.pruning import prune

    if run.model not in hosts:
        with torch.device("meta"):
            name = "videomae_tiny" if run.model.name == DEMO else run.model.name
            hosts[run.model] = create_model(name, run.model.num_classes)
    host = hosts[run.model]
    methods = share_proposals(build_methods(without_weights(run.method), run.model), proposals)
    build_views(run, prune(host, methods, self_check=False) if methods else host)


def _check_manifest(evaluation: EvaluateConfig, run: RunConfig, check: ConfigCheck) -> None:
    from vidprune.evaluation.inspection import inspect_manifest
    from vidprune.labels import class_names

    source = run.class_names or (DEMO if run.model.name == DEMO else None)
    num_classes = _num_classes(run)
    report = inspect_manifest(
        demo_or_path(evaluation.manifest),
        root=evaluation.root,
        format=evaluation.manifest_format,
        class_names=None if source is None else class_names(source, num_classes),
        num_classes=num_classes,
    )
    check.problems += report.problems
    check.warnings += report.warnings
