"""Plain values to a dataclass, with one clear line for a key that it does not have."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from vidprune.errors import ConfigError

_KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "text"),
    "bool": ((bool,), "true or false"),
}


def names_of(cls: Any) -> tuple[str, ...]:
    """The fields of a dataclass."""
    return tuple(field.name for field in dataclasses.fields(cls))


def build(cls: Any, data: object, where: str) -> Any:
    """`cls(**data)`. Raises `ConfigError` for an unknown or a missing key; null is as if the key were not there."""
    values = checked_keys(cls, data, where)
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
    return cls(**values)


def check_types(cls: Any, values: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` where a value is not of the plain kind that its field is declared with."""
    for field in dataclasses.fields(cls):
        kinds = [kind for kind in str(field.type).split(" | ") if kind != "None"]
        value = values.get(field.name)
        if value is None or not set(kinds) <= set(_KINDS):
            continue
        fits = [kind for kind in kinds if isinstance(value, _KINDS[kind][0])]
        if not fits or (isinstance(value, bool) and "bool" not in fits):  # to Python, true is a whole number
            raise ConfigError(
                f"{where}: {field.name} must be {' or '.join(_KINDS[k][1] for k in kinds)}, got {value!r}"
            )


def checked_keys(known: Any, data: object, where: str) -> dict[str, Any]:
    """The values of `data` that are not null. `known` is a dataclass, or the names that are allowed."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} must be a mapping of keys to values, got {data!r}")
    names: Sequence[str] = known if isinstance(known, tuple) else names_of(known)
    for key in data:
        if key not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"{where}: unknown key {key!r}: {hint}allowed are {', '.join(names)}")
    return {key: value for key, value in data.items() if value is not None}
