"""Measured figures as CSV that says what made them: command, device, versions."""

from __future__ import annotations

import csv
import platform
import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.errors import ConfigError
from vidprune.evaluation.identity import package_versions

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def write_measured(path: Path, rows: Sequence[DataclassInstance], *, command: Sequence[str], machine: str) -> None:
    """Write dataclass rows under comment lines that say what made them.

    Raises:
        ConfigError: `path` cannot be written.
    """
    plain = [{key: _short(value) for key, value in asdict(row).items()} for row in rows]
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            file.write(f"# {shlex.join(command)}\n# {machine}; {versions()}\n")
            writer = csv.DictWriter(file, fieldnames=list(plain[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(plain)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def versions() -> str:
    """Python and the packages whose speed is measured, those that are installed."""
    packages = (f"{name} {version}" for name, version in package_versions().items())
    return ", ".join((f"Python {platform.python_version()}", *packages))


def _short(value: Any) -> Any:
    return f"{value:.4g}" if isinstance(value, float) else value
