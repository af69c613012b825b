"""Flags that several verbs share, and how they override a config file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any

import typer

from vidprune.config import DEMO, DTYPES, RunConfig, load_config
from vidprune.errors import ConfigError
from vidprune.pruners import METHODS

Model = Annotated[str | None, typer.Option(help="Model name (see `vidprune list`), or demo for the shipped one.")]
Checkpoint = Annotated[str | None, typer.Option(help="Its weights: .pth, .safetensors or a Hugging Face folder.")]
Method = Annotated[str | None, typer.Option(help="papr, tome, evit, random, dense, ... (see `vidprune list`).")]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--method-option", help="Another field of the method, such as r=65; repeatable."),
]
KeepRatio = Annotated[float | None, typer.Option(help="Share of the tokens that stay, in (0, 1].")]
Proposal = Annotated[str | None, typer.Option(help="Network that marks the tubelets (papr only).")]
ProposalCheckpoint = Annotated[str | None, typer.Option(help="The proposal's weights.")]
InputTreatment = Annotated[str | None, typer.Option(help="How the proposal sees the clip: release, native, own_norm.")]
Protocol = Annotated[str | None, typer.Option(help="videomae or mmaction.")]
Segments = Annotated[int | None, typer.Option("--num-segments", help="Temporal segments per video.")]
Crops = Annotated[int | None, typer.Option("--num-crops", help="Spatial crops per segment.")]
ClassNames = Annotated[str | None, typer.Option(help="kinetics400, imagenet1k, demo, or a file of names.")]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:N.")]
Dtype = Annotated[str | None, typer.Option(help=", ".join(DTYPES) + ".")]
Backend = Annotated[str | None, typer.Option(help="Decoder: pyav, decord, torchcodec.")]
Config = Annotated[str | None, typer.Option(help="YAML file with any of these; flags override it.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

DEFAULT_KEEP_RATIO = 0.45  # PaPr's table 8: VideoMAE-B at 81.18 of 81.21 top-1


def method_fields(name: str | None, options: list[str] | None = None, **fields: Any) -> dict[str, Any]:
    """The method's mapping from its flags: those that were given, and the `field=value` of --method-option as YAML."""
    import yaml

    given = _given({"name": name, **fields})
    for option in options or ():
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise ConfigError(f"--method-option takes field=value, such as r=65, got {option!r}")
        try:
            given[key] = yaml.safe_load(value)
        except yaml.YAMLError:
            raise ConfigError(f"--method-option {key}: {value!r} is not a number, a list or a word") from None
    return given


def resolve(
    config: str | None,
    *,
    model: dict[str, Any],
    method: dict[str, Any],
    views: dict[str, Any],
    **top_level: Any,
) -> RunConfig:
    """The config file's values, overridden by every flag that was given (is not None)."""
    base = load_config(config) if config else RunConfig(method={})
    model_config = dataclasses.replace(base.model, **_given(model))
    merged_method = _merge_method(base.method, method)
    class_names = top_level.pop("class_names", None) or base.class_names
    if class_names is None and model_config.name == DEMO:
        class_names = DEMO
    return dataclasses.replace(
        base,
        model=model_config,
        method=merged_method,
        views={**base.views, **_given(views)},
        class_names=class_names,
        **_given(top_level),
    )


def _merge_method(base: Any, given: dict[str, Any]) -> Any:
    if not isinstance(base, Mapping):  # a chain: flags replace it or leave it
        if given and "name" not in given:
            raise ConfigError(
                f"the config's method is a chain; {', '.join(given)} would fit more than one of its steps"
            )
        base = {} if given else base
        if not given:
            return base
    name = given.get("name", base.get("name", "papr"))
    if name == "dense":
        return {"name": "dense"} | {k: v for k, v in given.items() if k != "name"}
    kept = dict(base) if base.get("name", name) == name else {}  # another method's options do not carry over
    fields = {field.name for field in dataclasses.fields(METHODS.get(name))}
    default = {"keep_ratio": DEFAULT_KEEP_RATIO} if "keep_ratio" in fields else {}
    return default | kept | given | {"name": name}


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}
