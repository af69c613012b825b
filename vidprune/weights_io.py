"""Opening weight files without running anything that is in them."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

_ALLOWED = "allowed are safetensors files and torch.save files of tensors in plain containers"


def read_state_dict(path: str | Path) -> dict[str, Any]:
    """Read a weight file onto the CPU, never unpickling arbitrary objects.

    Args:
        path: a safetensors file or any file written by `torch.save` (`.pth`, `.pt`, `.pyth`, `.bin`); the content, not
            the name, tells the format.

    Returns:
        The file's top-level dictionary: name -> tensor, or the containers its writer put around that (`model`,
        `module`, `state_dict`, `model_state`), which the caller unwraps.

    Raises:
        CheckpointError: the file is absent, empty, a web page, garbage, or would need foreign code to be read.
    """
    path = Path(path)
    if os.path.isdir(path):  # os.path, unlike Path, takes a name that is too long for one that is not there
        raise CheckpointError(f"{path} is a folder, not a weight file; name the file in it")
    if not os.path.isfile(path):
        raise CheckpointError(f"no weight file at {path}")
    try:
        with path.open("rb") as file:
            head = file.read(64)
    except OSError as error:
        raise CheckpointError(f"cannot read {path}: {error.strerror or error}") from None
    _refuse_text(path, head)
    content = _read_safetensors(path) if head[8:9] == b"{" else _read_torch(path)
    if not isinstance(content, dict) or not content:
        what = "nothing" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise CheckpointError(f"{path} holds {what}, not named weights; {_ALLOWED}")
    return dict(content)


def plain_weights(weights: Mapping[Any, Tensor], path: str | Path) -> dict[str, Tensor]:
    """Named tensors that a model can take, floating-point ones as float32.

    Raises:
        CheckpointError: a name that is no text, a tensor that is no array of plain numbers, or one that is not finite.
    """
    plain: dict[str, Tensor] = {}
    for name, value in weights.items():
        if not isinstance(name, str):
            raise CheckpointError(f"{path} names a tensor {name!r}; allowed are names that are text")
        if problem := _not_plain(value):
            raise CheckpointError(f"{path}: {name} is {problem}; allowed are arrays of real numbers, stored whole")
        plain[name] = _once(value).float().expand_as(value) if value.is_floating_point() else value
    broken = [name for name, value in plain.items() if value.is_floating_point() and not _once(value).isfinite().all()]
    if broken:
        raise CheckpointError(
            f"{path} holds weights that are not finite, {len(broken)} tensors of {len(plain)}, first {broken[0]}: its "
            "training diverged or the file is damaged; take an earlier or another checkpoint"
        )
    return plain


def _once(value: Tensor) -> Tensor:
    """Without repetitions along axes of stride 0, which let a few bytes stand for any shape."""
    return value[tuple(slice(1) if stride == 0 else slice(None) for stride in value.stride())]


def _not_plain(value: Tensor) -> str | None:
    """What keeps a tensor from being an array of real numbers, each in a place of its own."""
    import torch

    if value.is_quantized or value.is_complex():
        return f"of type {value.dtype}"
    if value.layout != torch.strided:
        return f"stored as {value.layout}"
    if value.is_meta:
        return "a shape without numbers"
    if _once(value).nbytes > value.untyped_storage().nbytes():
        return f"of shape {list(value.shape)} over {value.untyped_storage().nbytes()} bytes"
    return None


def _refuse_text(path: Path, head: bytes) -> None:
    """The three ways in which a download goes wrong most often, told apart from a damaged file."""
    if not head:
        raise CheckpointError(f"{path} is empty; download it again")
    if head.lstrip()[:1] == b"<":
        raise CheckpointError(f"{path} is a web page (HTML or XML), not weights; download the file itself")
    if head.startswith(b"version https://git-lfs"):
        raise CheckpointError(f"{path} is a Git LFS pointer, not weights; fetch the file with `git lfs pull`")


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({_first_line(error)}); fetch it again"
        ) from error


def _read_torch(path: Path) -> Any:
    from pickle import UnpicklingError

    import torch
    from safetensors import SafetensorError

    try:
        # Training scripts store their arguments as a Namespace, which is data: no code runs when one is read.
        with torch.serialization.safe_globals([argparse.Namespace]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        # torch's own text advises to switch the protection off; name the object instead.
        blocked = re.search(r"GLOBAL (\S+)", str(error))
        if blocked is None:
            raise CheckpointError(f"{path} is not a weight file; {_ALLOWED}") from error
        raise CheckpointError(
            f"{path} holds {blocked[1]} besides tensors, and reading that could run foreign code; {_ALLOWED}: save its "
            "state dict alone on a machine where you trust the file"
        ) from error
    except (
        *(RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError),
        *(SafetensorError, MemoryError, AssertionError),
    ) as error:  # a cut or garbled file can fail anywhere inside torch.load, which also goes by the file's suffix
        raise CheckpointError(f"{path} is damaged or not a weight file ({_first_line(error)}); {_ALLOWED}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].partition(". ")[0][:160]
