"""What `STAR` knows of a host beforehand, and the file it is kept in; `vidprune.calibration` computes it."""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vidprune.errors import ConfigError
from vidprune.pruners.base import HostInfo
from vidprune.types import TokenGrid

_FORMAT = 1
_SOURCES = ("rollout", "lrp", "given")


@dataclass(frozen=True, eq=False)
class Calibration:
    """Scores of every place and the redundancy of every block of one host, averaged over some inputs.

    Attributes:
        inter: float32 [L, N], the inter-layer score of each place in each block, none negative (STAR, Algorithm 2).
        similarity: float64 [L], the average cosine similarity of the tokens that each block puts out (STAR, Eq. 5).
        grid: the host's token grid, N tokens.
        host: the host's name, for people.
        method: how `inter` came about: "rollout", "lrp", or "given" by the user.
        num_inputs: views or images that were averaged.
        num_classes: how many of the most probable classes of each were averaged.
    """

    inter: np.ndarray
    similarity: np.ndarray
    grid: TokenGrid
    host: str = "unnamed"
    method: str = "given"
    num_inputs: int = 0
    num_classes: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "inter", _finite("inter", self.inter, 2).astype(np.float32))
        object.__setattr__(self, "similarity", _finite("similarity", self.similarity, 1))
        if self.inter.shape != (len(self.similarity), self.grid.num_tokens):
            raise ConfigError(
                f"inter must be [L, N] with L = {len(self.similarity)} as in similarity and N = "
                f"{self.grid.num_tokens} as in grid {self.grid.shape}, got {list(self.inter.shape)}"
            )
        if (self.inter < 0).any() or not self.inter.any(axis=1).all():
            raise ConfigError("inter must hold no negative score and at least one positive score per block")
        if self.method not in _SOURCES:
            raise ConfigError(f"method must be one of {', '.join(_SOURCES)}, got {self.method!r}")

    @property
    def depth(self) -> int:
        return len(self.similarity)

    def check_host(self, host: HostInfo) -> None:
        """Raise `ConfigError`, naming both, unless depth and token grid are those of `host`."""
        if (self.depth, self.grid) != (host.depth, host.grid):
            raise ConfigError(
                f"this calibration was made for {self.host}, {self.depth} blocks and token grid {self.grid.shape}; "
                f"the host has {host.depth} blocks and token grid {host.grid.shape}: make one for it with "
                "`vidprune calibrate`"
            )

    def save(self, path: str | Path) -> None:
        """Write an .npz file; a file that was there is replaced as a whole or not at all. Raises `ConfigError`."""
        path = Path(path)
        part = path.with_name(f"{path.name}.part")
        try:
            with part.open("wb") as file:
                np.savez(
                    file,
                    format=_FORMAT,
                    inter=self.inter,
                    similarity=self.similarity,
                    grid=np.array(self.grid.shape),
                    host=self.host,
                    method=self.method,
                    num_inputs=self.num_inputs,
                    num_classes=self.num_classes,
                )
            os.replace(part, path)
        except OSError as error:
            raise ConfigError(
                f"cannot write calibration {path}: {error.strerror}; name a file in a writable folder"
            ) from None


def load_calibration(path: str | Path) -> Calibration:
    """Read what `Calibration.save` wrote. Nothing is unpickled.

    Raises:
        ConfigError: for a file that cannot be read, is of another kind, or holds values that are no calibration.
    """
    try:
        found = np.load(path, allow_pickle=False)
        values: dict[str, np.ndarray] = {}
        if not isinstance(found, np.ndarray):
            with found:
                values = dict(found)
    except OSError as error:
        raise ConfigError(f"cannot read calibration {str(path)!r}: {error.strerror or error}") from None
    except (ValueError, EOFError, zipfile.BadZipFile):  # text, a pickle, a torn archive
        values = {}
    names = {"format", "inter", "similarity", "grid", "host", "method", "num_inputs", "num_classes"}
    if not names <= set(values) or values["format"] != _FORMAT or values["grid"].shape != (3,):
        raise ConfigError(f"{str(path)!r} is not a calibration file; make one with `vidprune calibrate`")
    try:
        return Calibration(
            values["inter"],
            values["similarity"],
            TokenGrid(*(int(size) for size in values["grid"])),
            str(values["host"]),
            str(values["method"]),
            int(values["num_inputs"]),
            int(values["num_classes"]),
        )
    except (ConfigError, ValueError, TypeError) as error:
        raise ConfigError(f"calibration {str(path)!r}: {error}") from None


def _finite(name: str, values: object, ndim: int) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != ndim or array.size == 0 or not np.issubdtype(array.dtype, np.number):
        raise ConfigError(f"{name} must be an array of numbers with {ndim} axes, got {array.dtype} {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ConfigError(f"{name} holds {int((~np.isfinite(array)).sum())} values that are NaN or infinite")
    return array.astype(np.float64)
