"""Opening weight files without running anything that is in them."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from vidprune.errors import CheckpointError

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
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder, not a weight file; name the file in it")
    if not path.is_file():
        raise CheckpointError(f"no weight file at {path}")
    with path.open("rb") as file:
        head = file.read(64)
    _refuse_text(path, head)
    content = _read_safetensors(path) if head[8:9] == b"{" else _read_torch(path)
    if not isinstance(content, dict) or not content:
        what = "nothing" if isinstance(content, dict) else f"a {type(content).__name__}"
        raise CheckpointError(f"{path} holds {what}, not named weights; {_ALLOWED}")
    return dict(content)


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
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        # A cut or garbled file can fail anywhere inside torch.load.
        raise CheckpointError(f"{path} is damaged or not a weight file ({_first_line(error)}); {_ALLOWED}") from error


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].partition(". ")[0][:160]
