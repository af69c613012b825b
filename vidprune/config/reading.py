"""From YAML and `a.b=c` settings to the config dataclasses; an unknown key is an error that names the nearest one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vidprune.config.building import method_steps
from vidprune.config.classes import (
    EvaluateConfig,
    ModelConfig,
    ProposalConfig,
    RunConfig,
    SweepConfig,
    SweepGrid,
)
from vidprune.config.fields import build, check_types, checked_keys, names_of
from vidprune.config.yaml_text import MAX_BYTES, parse_yaml
from vidprune.errors import ConfigError

_RUN_KEYS = names_of(RunConfig)
_EVALUATE_KEYS = tuple(name for name in names_of(EvaluateConfig) if name != "run")
_GRID_KEYS = names_of(SweepGrid)


def load_config(path: str | Path, settings: Sequence[str] = ()) -> RunConfig:
    """Read a run's YAML config, with `a.b=c` settings over it (see `apply_settings`).

    Raises:
        ConfigError: a missing file, bad YAML, or an unknown key, with the nearest one.
    """
    return parse_config(apply_settings(read_data(path), settings), source=str(path))


def read_data(path: str | Path) -> dict[str, Any]:
    """The mapping that a YAML file holds."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror or error}") from None
    if len(content) > MAX_BYTES:
        raise ConfigError(f"{path} is no config: it is larger than {MAX_BYTES:,} bytes")
    try:
        data = parse_yaml(content.decode("utf-8-sig"))
    except (ConfigError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is not valid YAML: {error}") from None
    if not isinstance(data or {}, Mapping):
        raise ConfigError(f"{path} must be a mapping of keys to values, got {data!r}")
    return dict(data or {})


def apply_settings(data: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """`data` with each "a.b=c" put in its place; c is YAML, and null is as if the key were not there.

    A number steps into a list: "method.0.keep_ratio=0.5". Unknown keys are found when the result is parsed.
    """
    changed = copy.deepcopy(dict(data))
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not all(path.split(".")):
            raise ConfigError(f"a setting is key=value, such as method.keep_ratio=0.5, got {setting!r}")
        try:
            value = parse_yaml(text)
        except ConfigError:
            raise ConfigError(f"setting {path}: {text!r} is no YAML value, such as 0.5, word or [1, 2]") from None
        *parents, last = path.split(".")
        place: Any = changed
        for key in parents:
            place = _step_into(place, key, setting)
        _put(place, last, value, setting)
    return changed


def parse_config(data: object, *, source: str = "config") -> RunConfig:
    """A `RunConfig` from plain mappings."""
    _refuse_kinds(("evaluate", "sweep"), data, source)
    values = checked_keys(RunConfig, data, source)
    if "model" in values:
        values["model"] = _typed(ModelConfig, values["model"], f"{source}: model")
    if "method" in values:
        values["method"] = _method(values["method"])
    if not isinstance(values.get("views", {}), Mapping):
        raise ConfigError(f"{source}: views must be a mapping such as {{num_segments: 5}}, got {values['views']!r}")
    config: RunConfig = _typed(RunConfig, values, source)
    return config


def parse_evaluation(data: object, *, source: str = "config") -> EvaluateConfig:
    """An `EvaluateConfig` from plain mappings; the run's keys stand beside its own."""
    _refuse_kinds(("sweep",), data, source)
    own, run = _split(data, (*_EVALUATE_KEYS, *_RUN_KEYS), _EVALUATE_KEYS, source)
    config: EvaluateConfig = _typed(EvaluateConfig, own | {"run": parse_config(run, source=source)}, source)
    return config


def parse_sweep(data: object, *, source: str = "config") -> SweepConfig:
    """A `SweepConfig` from plain mappings; the evaluation's and the run's keys stand beside `grids`."""
    shared = tuple(key for key in (*_EVALUATE_KEYS, *_RUN_KEYS) if key not in ("model", "method"))
    own, rest = _split(data, ("grids", *_GRID_KEYS, *shared), ("grids", *_GRID_KEYS), source)
    grids = own.pop("grids", None)
    if grids is not None and own:
        raise ConfigError(f"{source}: {', '.join(own)} stand beside grids; put them into a grid")
    if grids is not None and (not isinstance(grids, Sequence) or isinstance(grids, str)):
        raise ConfigError(f"{source}: grids must be a list of mappings, got {grids!r}")
    listed = [own] if grids is None else list(grids)
    where = [source] if grids is None else [f"{source}: grids.{number}" for number in range(len(listed))]
    return SweepConfig(
        evaluation=parse_evaluation(rest, source=source),
        grids=tuple(_grid(values, place) for values, place in zip(listed, where, strict=True)),
    )


def kind_of(data: Mapping[str, Any]) -> str:
    """ "sweep", "evaluate" or "run", by the keys that only one of them has."""
    if set(data) & {"grids", *_GRID_KEYS}:
        return "sweep"
    return "evaluate" if set(data) & set(_EVALUATE_KEYS) else "run"


def _refuse_kinds(kinds: Sequence[str], data: object, source: str) -> None:
    """Raise for the config of another verb; one with an unknown key is left to the check that names the nearest."""
    known = {*_RUN_KEYS, *_EVALUATE_KEYS, *_GRID_KEYS, "grids"}
    if isinstance(data, Mapping) and set(data) <= known and kind_of(data) in kinds:
        raise ConfigError(f"{source} is a config of `vidprune {kind_of(data)}`, not of this command")


def _grid(data: object, source: str) -> SweepGrid:
    values = checked_keys(SweepGrid, data, source)
    for key in values:
        if not isinstance(values[key], Sequence) or isinstance(values[key], str) or not values[key]:
            raise ConfigError(f"{source}: {key} must be a list of at least one, got {values[key]!r}")
    for key, cls in (("models", ModelConfig), ("proposals", ProposalConfig)):
        if key in values:
            values[key] = tuple(_typed(cls, value, f"{source}: {key}") for value in values[key])
    if "methods" in values:
        values["methods"] = tuple(_method(method) for method in values["methods"])
    grid: SweepGrid = build(SweepGrid, values, source)
    return grid


def _typed(cls: Any, data: object, where: str) -> Any:
    """One of the config classes, whose plain fields must be of the kind that they are declared with."""
    values = checked_keys(cls, data, where)
    check_types(cls, values, where)
    return build(cls, values, where)


def _method(method: object) -> Any:
    """A method's mapping, or the list of a chain's, without the keys that say null."""
    steps = [{k: v for k, v in step.items() if v is not None} for step in method_steps(method)]
    return steps[0] if isinstance(method, Mapping) else steps


def _split(
    data: object, allowed: Sequence[str], own: Sequence[str], source: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The values of the keys in `own`, and those of the others; a key that is not `allowed` is an error."""
    values = checked_keys(tuple(dict.fromkeys(allowed)), data, source)
    return {k: v for k, v in values.items() if k in own}, {k: v for k, v in values.items() if k not in own}


def _step_into(place: Any, key: str, setting: str) -> Any:
    if isinstance(place, list):
        return place[_position(place, key, setting)]
    if place.get(key) is None:
        place[key] = {}
    if not isinstance(place[key], dict | list):
        raise ConfigError(f"setting {setting!r}: {key} is {place[key]!r}, which holds no keys")
    return place[key]


def _put(place: Any, key: str, value: Any, setting: str) -> None:
    if isinstance(place, list):
        place[_position(place, key, setting)] = value
    else:
        place[key] = value


def _position(place: list[Any], key: str, setting: str) -> int:
    if not key.isdecimal() or int(key) >= len(place):
        raise ConfigError(f"setting {setting!r}: {key!r} must be a place in a list, from 0 to {len(place) - 1}")
    return int(key)
