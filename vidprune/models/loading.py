"""Models by name: with random weights, or with the weights of a checkpoint that must fit in every name and shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidprune.errors import CheckpointError, ConfigError, unknown_name
from vidprune.models.builders import build_videomae, override_spec
from vidprune.models.catalog import MODELS, TIMM_PREFIX
from vidprune.models.checkpoint_checks import (
    check_biases_survived,
    check_classes,
    check_huggingface_config,
    check_names_and_shapes,
    check_position_table,
    check_size,
    names_of_size,
)
from vidprune.models.checkpoint_files import StateDict, read_tensors
from vidprune.models.checkpoints import FoundSize, detect_layout, find_size, translate
from vidprune.models.frame_names import parse_frames_name
from vidprune.models.videomae import VIDEOMAE_SPECS, VideoMAE, VideoMAESpec, sincos_position_table


def create_model(name: str | VideoMAESpec, num_classes: int | None = None, **overrides: Any) -> nn.Module:
    """A model with random weights, in eval mode; reproducible through `torch.manual_seed`.

    Args:
        name: a name of `MODELS`, `timm/NAME` for an image model of timm, `frames/NAME` for one that runs on every frame
            of a clip (see `vidprune.models.frame_names`), or your own `VideoMAESpec`.
        num_classes: rows of the head; None is 400 for VideoMAE and timm's own default for its models.
        overrides: for VideoMAE the fields of `VideoMAESpec`, such as `num_frames` and `image_size`; for other models
            what their factory takes.

    Raises:
        UnknownNameError: no such name; the message offers the nearest.
        ConfigError: sizes that do not go together.
    """
    settings = overrides if num_classes is None else {"num_classes": num_classes, **overrides}
    if isinstance(name, VideoMAESpec):
        return build_videomae(name, **settings).eval()
    if frames := parse_frames_name(name):
        return frames.wrap(create_model(frames.image_model, **settings))
    if name.startswith(TIMM_PREFIX):
        return _create_timm(name, settings)
    if name not in MODELS:
        raise unknown_name("model", name, [*MODELS.names(), "timm/NAME", "frames/NAME"])
    return MODELS.get(name)(**settings).eval()


def load_model(
    name: str | VideoMAESpec | None,
    checkpoint: str | Path,
    *,
    num_classes: int | None = None,
    layout: str = "auto",
    num_heads: int | None = None,
    num_frames: int | None = None,
    image_size: int | None = None,
) -> nn.Module:
    """A model with the weights of `checkpoint` in float32, in eval mode: a `VideoMAE`, or what `name` makes.

    Every parameter must be found and every tensor of the file used, else the checkpoint is refused.

    Args:
        name: a VideoMAE name of `MODELS`, your own `VideoMAESpec`, or None or "auto" to tell the size from the tensors.
            Any other name of `create_model` loads files with that model's own parameter names; of the arguments below
            it takes `num_classes` alone.
        checkpoint: a file or folder, see `read_tensors`.
        num_classes: classes the head must have; None takes what the file has.
        layout: "native", "official" (VideoMAE and V2), "mmaction", "huggingface", or "auto" to tell it from the names.
        num_heads: attention heads, which no tensor shows; None takes the architecture's. Hugging Face's conversion of
            the small model says 16 in its config.json, but its authors trained it with 6 heads (64 channels each, as
            in every size but huge and giant): 6 is what is used.
        num_frames, image_size: of the clips the weights were trained for, where they differ from the architecture's.

    Raises:
        CheckpointError: a file that cannot be read, has another size or number of classes, lacks names or has more, or
            comes from pre-training.
        ConfigError: settings that do not go together or that the model does not have.
        UnknownNameError: unknown model or layout.
    """
    if not isinstance(checkpoint, str | Path):
        raise ConfigError(f"checkpoint must be a file or folder, got {checkpoint!r}; create_model gives random weights")
    if isinstance(name, str) and name != "auto" and name not in VIDEOMAE_SPECS:
        if layout != "auto" or any(value is not None for value in (num_heads, num_frames, image_size)):
            raise ConfigError(f"layout, num_heads, num_frames and image_size are settings of VideoMAE, not of {name!r}")
        return _load_other(name, checkpoint, num_classes)
    raw = read_tensors(checkpoint)
    try:
        state = translate(raw, layout)
        found = find_size(state)
        model_name = name if name is not None and name != "auto" else _name_by_size(found)
        spec = override_spec(model_name, num_heads=num_heads, num_frames=num_frames, image_size=image_size)
        check_size(found, spec, model_name if isinstance(model_name, str) else "your VideoMAESpec")
        check_classes(found, num_classes)
        if detect_layout(raw) == "huggingface":
            check_huggingface_config(Path(checkpoint), spec, heads_given=num_heads is not None)
        return _fill(spec, found.num_classes, state, source=str(checkpoint))
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {checkpoint}: {error}") from None


def _fill(spec: VideoMAESpec, num_classes: int, state: StateDict, source: str) -> VideoMAE:
    table = sincos_position_table(spec.grid.num_tokens, spec.width)
    check_position_table(state.pop("pos_embed", None), table)
    with torch.device("meta"):  # no time spent on random weights that are replaced at once
        model = VideoMAE(spec, num_classes)
    check_names_and_shapes(state, model)
    check_biases_survived(state, spec.depth)
    model.load_state_dict(state, strict=True, assign=True)
    model.pos_embed = table
    model.checkpoint_source = source
    return model.eval()


def _load_other(name: str, checkpoint: str | Path, num_classes: int | None) -> nn.Module:
    if frames := parse_frames_name(name):
        return frames.wrap(_load_other(frames.image_model, checkpoint, num_classes))
    model: Any = create_model(name, num_classes)
    state = read_tensors(checkpoint)
    try:
        check_names_and_shapes(state, model)
    except CheckpointError as error:
        raise CheckpointError(f"checkpoint {checkpoint}: {error}") from None
    model.load_state_dict(state, strict=True)
    model.checkpoint_source = str(checkpoint)
    return model


def _create_timm(name: str, settings: dict[str, Any]) -> nn.Module:
    import timm

    architecture = name.removeprefix(TIMM_PREFIX)
    if not timm.is_model(architecture):
        raise unknown_name("timm model", architecture, timm.list_models(f"*{architecture[:3]}*"))
    try:
        return timm.create_model(architecture, pretrained=False, **settings).eval()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ConfigError(f"timm cannot build {name!r} with {settings}: {error}") from None


def _name_by_size(found: FoundSize) -> str:
    names = names_of_size(found)
    if len({VIDEOMAE_SPECS[name] for name in names}) != 1:
        raise CheckpointError(f"its size ({found}) is none of {', '.join(VIDEOMAE_SPECS)}: give your own VideoMAESpec")
    return names[0]  # V1 and V2 of one size share the architecture
