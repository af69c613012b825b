"""Flags that several verbs share, and how they override a config file."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from vidprune.cli import flag_types as flag
from vidprune.config import (
    DEMO,
    EvaluateConfig,
    RunConfig,
    apply_settings,
    parse_config,
    parse_evaluation,
    read_data,
)
from vidprune.errors import ConfigError
from vidprune.pruners import METHODS

DEFAULT_KEEP_RATIO = 0.45  # PaPr's table 8: VideoMAE-B at 81.18 of 81.21 top-1


@dataclass(frozen=True)
class RunFlags:
    """What a verb that runs a model can be told of it, in the order of its help; None where a flag was not given."""

    model: flag.Model = None
    checkpoint: flag.Checkpoint = None
    method: flag.Method = None
    keep_ratio: flag.KeepRatio = None
    proposal: flag.Proposal = None
    proposal_checkpoint: flag.ProposalCheckpoint = None
    input_treatment: flag.InputTreatment = None
    method_option: flag.MethodOptions = None
    protocol: flag.Protocol = None
    num_segments: flag.Segments = None
    num_crops: flag.Crops = None
    class_names: flag.ClassNames = None
    device: flag.Device = None
    dtype: flag.Dtype = None
    backend: flag.Backend = None
    colour: flag.Colour = None
    compile: flag.Compile = None
    views_per_batch: flag.ViewsPerBatch = None
    config: flag.Config = None
    settings: flag.Settings = None

    def resolve(self) -> RunConfig:
        """The config file's values, overridden by every flag that was given, then by every --set."""
        return parse_config(self._over(self._file(parse_config)))

    def resolve_evaluation(self, **own: Any) -> EvaluateConfig:
        """The same for an evaluation, whose `own` flags are None where they were not given."""
        data = self._file(parse_evaluation, own) | _given(own)
        ways = {"manifest": "a list or folder of videos (MANIFEST)", "out": "a folder for its results (--out FOLDER)"}
        missing = [way for name, way in ways.items() if name not in apply_settings(data, self.settings or ())]
        if missing:
            raise ConfigError(f"an evaluation needs {' and '.join(missing)}, here or in the --config file")
        return parse_evaluation(self._over(data))

    def _file(self, parse: Callable[..., object], own: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The config file's mapping, found good; without one, a run whose method is still open."""
        if self.config is None:
            return {"method": {}}
        data = read_data(self.config)
        fillers = {name: "-" for name in ("manifest", "out") if own is not None and data.get(name) is None}
        parse(data | fillers, source=self.config)  # what is wrong in the file is said of the file
        return data

    def _over(self, data: dict[str, Any]) -> dict[str, Any]:
        method = method_fields(
            self.method,
            self.method_option,
            keep_ratio=self.keep_ratio,
            proposal=self.proposal,
            proposal_checkpoint=self.proposal_checkpoint,
            input_treatment=self.input_treatment,
        )
        return override(
            data,
            model={"name": self.model, "checkpoint": self.checkpoint},
            method=method,
            views={"protocol": self.protocol, "num_segments": self.num_segments, "num_crops": self.num_crops},
            settings=self.settings,
            class_names=self.class_names,
            device=self.device,
            dtype=self.dtype,
            backend=self.backend,
            colour=self.colour,
            compile=self.compile,
            views_per_batch=self.views_per_batch,
        )


@dataclass(frozen=True)
class EvaluationFlags:
    """What a verb that evaluates the videos of a manifest can be told of how; None where a flag was not given."""

    workers: flag.Workers = None
    timeout_s: flag.TimeoutS = None
    max_failed: flag.MaxFailed = None
    store: flag.Store = None
    retry_failed: flag.RetryFailed = None
    limit: flag.Limit = None


def spread(*, without: Collection[str] = ()) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorates a verb with parameters that are groups of flags, `RunFlags` or `EvaluationFlags`.

    Typer reads one flag per parameter, so it is shown the fields of each group in the group's place.

    Args:
        without: fields that mean nothing to the verb.
    """

    def decorate(verb: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(verb, eval_str=True).parameters.values()
        groups = {one.name: one.annotation for one in own if one.annotation in (RunFlags, EvaluationFlags)}
        fields = {name: _parameters_of(group, without) for name, group in groups.items()}
        parameters = [parameter for one in own for parameter in fields.get(one.name, [one])]

        @functools.wraps(verb)
        def called(**values: Any) -> None:
            for name, group in groups.items():
                values[name] = group(**{field.name: values.pop(field.name) for field in fields[name]})
            verb(**values)

        called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return decorate


def _parameters_of(group: type, without: Collection[str]) -> list[inspect.Parameter]:
    """The fields of a group of flags as parameters of a verb."""
    kind = inspect.Parameter.KEYWORD_ONLY
    hints = get_type_hints(group, include_extras=True)
    return [inspect.Parameter(n, kind, default=None, annotation=hint) for n, hint in hints.items() if n not in without]


def method_fields(name: str | None, options: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    """The method's mapping from its flags: those that were given, and the `field=value` of --method-option as YAML."""
    given = _given({"name": name, **fields})
    for option in options or ():
        if not option.partition("=")[1] or not option.partition("=")[0]:
            raise ConfigError(f"--method-option takes field=value, such as r=65, got {option!r}")
        given = apply_settings(given, [option])
    return given


def resolve(
    config: str | None,
    *,
    model: dict[str, Any],
    method: dict[str, Any],
    views: dict[str, Any],
    settings: Sequence[str] | None = None,
    **top_level: Any,
) -> RunConfig:
    """A run from a verb's own choice of flags, over the config file's values."""
    data = RunFlags(config=config)._file(parse_config)
    return parse_config(override(data, model=model, method=method, views=views, settings=settings, **top_level))


def override(
    data: Mapping[str, Any],
    *,
    model: dict[str, Any],
    method: dict[str, Any],
    views: dict[str, Any],
    settings: Sequence[str] | None = None,
    **top_level: Any,
) -> dict[str, Any]:
    """`data` with what was given (is not None) in its place; `settings`, as of --set, come last."""
    changed = {**data, **_given(top_level)}
    changed["model"] = {**(data.get("model") or {}), **_given(model)}
    changed["method"] = _merge_method(data.get("method", {"name": "dense"}), method)
    changed["views"] = {**(data.get("views") or {}), **_given(views)}
    changed = apply_settings(changed, settings or ())
    if changed.get("class_names") is None and (changed.get("model") or {}).get("name") == DEMO:
        changed["class_names"] = DEMO
    return changed


def _merge_method(base: Any, given: dict[str, Any]) -> Any:
    if not isinstance(base, Mapping):  # a chain: flags replace it or leave it
        if not given:
            return base
        if "name" not in given:
            raise ConfigError(
                f"the config's method is a chain; say which of its steps {', '.join(given)} is for, "
                "such as --set method.0.keep_ratio=0.5"
            )
        base = {}
    name = given.get("name", base.get("name", "papr"))
    if name == "dense":
        return {"name": "dense"} | {k: v for k, v in given.items() if k != "name"}
    kept = dict(base) if base.get("name", name) == name else {}  # another method's options do not carry over
    fields = {field.name for field in dataclasses.fields(METHODS.get(name))}
    default = {"keep_ratio": DEFAULT_KEEP_RATIO} if "keep_ratio" in fields and "mass" not in kept | given else {}
    return default | kept | given | {"name": name}


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
