"""From a checkpoint file or folder to a flat dict of float32 tensors, under the names the file gives them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from vidprune import weights_io
from vidprune.errors import CheckpointError

StateDict = dict[str, Tensor]

# VideoMAE's own loader asks for "model", then "module" (DeepSpeed); mmengine and Lightning write "state_dict".
_WRAPPERS = ("model", "module", "state_dict", "model_state_dict", "model_state")
_MAX_WRAPPERS = 4
_FOLDER_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def read_tensors(path: str | Path) -> StateDict:
    """Read every tensor of a checkpoint; floating-point ones become float32.

    Args:
        path: a `torch.save` file (a state dict, alone or under `model`, `module` or `state_dict`), a safetensors file,
            an index of shards (`*.index.json`), or a Hugging Face folder with one of these.

    Raises:
        CheckpointError: missing, empty, truncated or foreign files, files that would need unpickling, and weights that
            are not finite.
    """
    path = Path(path).expanduser()
    if os.path.isdir(path):
        path = _file_in_folder(path)
    tensors = _read_shards(path) if _is_json(path) else _read_file(path)
    return weights_io.plain_weights(tensors, path)


def name_some(names: list[str], limit: int = 8) -> str:
    """The first names and how many there are: "a, b, ... (24 in all)"."""
    shown = ", ".join(names[:limit])
    return shown if len(names) <= limit else f"{shown}, ... ({len(names)} in all)"


def _file_in_folder(folder: Path) -> Path:
    for name in _FOLDER_FILES:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(f"no checkpoint in folder {folder}: expected one of {', '.join(_FOLDER_FILES)}")


def _is_json(path: Path) -> bool:
    if not os.path.isfile(path):
        return False
    with path.open("rb") as file:
        # A safetensors file whose header is 123 bytes long, modulo 256, starts with "{" too, but then come zero bytes.
        head = file.read(8)
    return head[:1] == b"{" and b"\0" not in head


def _read_file(path: Path) -> StateDict:
    """One file's state dict; what a training program keeps beside it (optimizer, epoch, EMA copy) is left."""
    content: Any = weights_io.read_state_dict(path)
    for _ in range(_MAX_WRAPPERS):  # a wrapper may hold itself
        inner = next((content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if not inner:
            break
        content = inner
    foreign = [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
    if foreign:
        looked = ", ".join(_WRAPPERS)
        raise CheckpointError(
            f"{path} holds no state dict, neither at the top nor under {looked}: not tensors are {name_some(foreign)}"
        )
    return dict(content)


def _read_shards(index: Path) -> StateDict:
    """The tensors that a Hugging Face index lists, each from the shard it names."""
    try:
        weight_map: Any = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted(set(weight_map.values()))
        outside = [shard for shard in shards if Path(shard).name != shard]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise CheckpointError(f"{index} is JSON but no index of shards: no usable 'weight_map' in it") from None
    if outside:
        raise CheckpointError(f"{index} names shards outside its folder: {name_some(outside)}")
    tensors: StateDict = {}
    for shard in shards:
        content = _read_file(index.parent / shard)
        tensors.update({name: value for name, value in content.items() if weight_map.get(name) == shard})
    lost = [name for name in weight_map if name not in tensors]
    if lost:
        raise CheckpointError(f"the shards of {index} lack {name_some(lost)}")
    return tensors
