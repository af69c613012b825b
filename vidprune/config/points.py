"""The points of a sweep: from its grids to one named run each, every model's dense one first."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidprune.config.building import build_methods, method_steps
from vidprune.config.classes import MethodConfig, ModelConfig, RunConfig, SweepConfig, SweepGrid
from vidprune.config.fields import names_of
from vidprune.errors import ConfigError
from vidprune.pruners import METHODS

DENSE = {"name": "dense"}


@dataclass(frozen=True)
class PointConfig:
    """One run of a sweep, and the name of its folder."""

    name: str
    run: RunConfig


def expand(config: SweepConfig) -> list[PointConfig]:
    """All points of a sweep, model after model; what is named twice is one point.

    Raises:
        ConfigError: a method that does not fit its own fields, an `each` that is no mapping of lists.
    """
    points: list[PointConfig] = []
    seen: list[tuple[ModelConfig, tuple[Any, ...]]] = []
    for model in _distinct(model for grid in config.grids for model in grid.models):
        methods = [method for grid in config.grids if model in grid.models for method in _methods(grid)]
        for method in (DENSE, *methods):
            what = (model, build_methods(method, model))  # two spellings of one method are one point
            if what in seen:
                continue
            seen.append(what)
            run = dataclasses.replace(config.evaluation.run, model=model, method=method)
            name = point_name(model, what[1])
            taken = {point.name for point in points}
            numbered = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
            points.append(PointConfig(next(n for n in numbered if n not in taken), run))
    return points


def point_name(model: ModelConfig, methods: Sequence[Any]) -> str:
    """A folder's name that says what runs in it: "videomae_base-papr-x3d_s-z0.45", "demo-random-z0.5+tome-r8".

    It follows from the point alone, so that a sweep that is extended keeps the folders it has. Fields at their default
    and weight files are left out.
    """
    name = f"{model.name}-{'+'.join(_method_name(method) for method in methods) or 'dense'}"
    return re.sub(r"[^\w.+=-]+", "_", name)


def _method_name(method: Any) -> str:
    parts = [method.name]
    if isinstance(getattr(method, "proposal", None), str):
        parts.append(method.proposal)
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if value == field.default or field.name == "proposal" or field.name.endswith("checkpoint"):
            continue
        if field.name == "keep_ratio":
            parts.append(f"z{value:g}")
        else:
            parts.append(Path(value).stem if isinstance(value, str) else f"{field.name}{_short(value)}")
    return "-".join(parts)


def _short(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "_".join(_short(item) for item in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


def _methods(grid: SweepGrid) -> Iterator[MethodConfig]:
    """Every method of a grid with all its values, those of a chain's steps combined."""
    for method in grid.methods:
        for steps in itertools.product(*(_variants(step, grid) for step in method_steps(method))):
            yield steps[0] if isinstance(method, Mapping) else list(steps)


def _variants(step: Mapping[str, Any], grid: SweepGrid) -> list[dict[str, Any]]:
    """One step with each value of what it leaves open: its `each`, then the grid's proposals and keep ratios."""
    fixed = {key: value for key, value in step.items() if key != "each"}
    name = fixed.get("name")
    if name is None or name == "dense":
        return [dict(step)]
    known = names_of(METHODS.get(name))
    each = step.get("each", {})
    if not isinstance(each, Mapping) or not all(isinstance(values, list | tuple) for values in each.values()):
        raise ConfigError(f"method {name}: each must map fields to lists, such as {{r: [20, 40]}}, got {each!r}")
    choices: list[list[dict[str, Any]]] = [[{key: value} for value in values] for key, values in each.items()]
    given = {*fixed, *each}
    if "proposal" in known and "proposal" not in given and grid.proposals:
        choices.append([proposal.fields_of_method() for proposal in grid.proposals])
    if "keep_ratio" in known and not given & {"keep_ratio", "mass"} and grid.keep_ratios:
        choices.append([{"keep_ratio": ratio} for ratio in grid.keep_ratios])
    if isinstance(fixed.get("keep_ratio"), list | tuple):
        raise ConfigError(f"method {name}: write several keep ratios as each: {{keep_ratio: {fixed['keep_ratio']}}}")
    return [fixed | {k: v for part in chosen for k, v in part.items()} for chosen in itertools.product(*choices)]


def _distinct(models: Iterator[ModelConfig]) -> list[ModelConfig]:
    found: list[ModelConfig] = []
    for model in models:
        if model not in found:
            found.append(model)
    return found
