"""What `prune` and a pruned model are given, refused in one line where it is of another kind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.pruners.base import Pruner


def checked_methods(method: object) -> tuple[Pruner, ...]:
    """One method, or several in a list, as a tuple. Raises `ConfigError` for what is none."""
    methods: list[object] = [method]
    if isinstance(method, Iterable) and not isinstance(method, str | Mapping | type):
        methods = list(method)
    if not methods:
        raise ConfigError("prune needs at least one method, such as PaPr(keep_ratio=0.45)")
    checked: list[Pruner] = []
    for entry in methods:
        if not isinstance(entry, Pruner):
            got = entry.__name__ + " itself; call it" if isinstance(entry, type) else repr(entry)
            raise ConfigError(f"method must be a config such as PaPr(keep_ratio=0.45), got {got}")
        checked.append(entry)
    return tuple(checked)


def check_pixels(pixels: object, shape: tuple[int, ...]) -> None:
    """Raise `ConfigError` for what is no float tensor with as many axes as `shape`, the shape of one input."""
    if not isinstance(pixels, Tensor) or not pixels.is_floating_point():
        got = f"{pixels.dtype} values" if isinstance(pixels, Tensor) else type(pixels).__name__
        raise ConfigError(f"this model takes a float tensor of normalised pixels, got {got}")
    if pixels.ndim != len(shape):
        hint = "; an image model takes clips as vidprune.FrameBatch(model)" if pixels.ndim == 5 else ""
        raise ConfigError(f"this model takes inputs [B, {str(list(shape[1:]))[1:-1]}], got {list(pixels.shape)}{hint}")
