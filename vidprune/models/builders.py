"""One factory per model name; `MODELS` points here."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import partial
from typing import Any

from vidprune.errors import ConfigError
from vidprune.models.videomae import VideoMAE, VideoMAESpec, videomae_spec


def build_videomae(model: str | VideoMAESpec, num_classes: int = 400, **overrides: Any) -> VideoMAE:
    """A VideoMAE with random weights.

    Args:
        model: a name of the table, or an architecture of your own.
        num_classes: rows of the classification head.
        overrides: fields of `VideoMAESpec` to change, above all `num_frames` and `image_size`: the position table is
            computed for the flat token index, so any grid works (with weights trained for it).

    Raises:
        ConfigError: an unknown override or sizes that do not go together.
    """
    return VideoMAE(override_spec(model, **overrides), num_classes)


def override_spec(model: str | VideoMAESpec, **overrides: Any) -> VideoMAESpec:
    """The architecture `model` with the given fields changed; values of None leave a field alone."""
    spec = videomae_spec(model) if isinstance(model, str) else model
    known = [field.name for field in fields(VideoMAESpec)]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ConfigError(f"unknown VideoMAE setting {', '.join(unknown)}: known are {', '.join(known)}")
    return replace(spec, **{key: value for key, value in overrides.items() if value is not None})


videomae_tiny = partial(build_videomae, "videomae_tiny")
videomae_small = partial(build_videomae, "videomae_small")
videomae_base = partial(build_videomae, "videomae_base")
videomae_large = partial(build_videomae, "videomae_large")
videomae_huge = partial(build_videomae, "videomae_huge")
videomae_v2_small = partial(build_videomae, "videomae_v2_small")
videomae_v2_base = partial(build_videomae, "videomae_v2_base")
videomae_v2_giant = partial(build_videomae, "videomae_v2_giant")
