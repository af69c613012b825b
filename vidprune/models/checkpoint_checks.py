"""What a translated checkpoint must satisfy before it is loaded; each check raises `CheckpointError` with one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidprune.errors import CheckpointError
from vidprune.models.checkpoint_files import StateDict, name_some
from vidprune.models.checkpoints import FoundSize
from vidprune.models.videomae import VIDEOMAE_SPECS, VideoMAESpec

_SMALL_WIDTH = 384


def has_size(spec: VideoMAESpec, found: FoundSize) -> bool:
    """Whether `found` is the size of `spec`."""
    return (spec.width, spec.depth, spec.mlp_width, spec.tubelet) == (
        found.width,
        found.depth,
        found.mlp_width,
        found.tubelet,
    )


def names_of_size(found: FoundSize) -> list[str]:
    """The registered VideoMAE models of this size."""
    return [name for name, spec in VIDEOMAE_SPECS.items() if has_size(spec, found)]


def check_size(found: FoundSize, spec: VideoMAESpec, asked: str) -> None:
    """The checkpoint has the size of the model asked for."""
    if has_size(spec, found):
        return
    expected = FoundSize(spec.width, spec.depth, spec.mlp_width, spec.tubelet, found.num_classes)
    names = names_of_size(found)
    if names:
        raise CheckpointError(
            f"this is {' or '.join(names)} ({found}), asked for {asked} ({expected}): use --model {names[0]}"
        )
    raise CheckpointError(f"this has {found}, asked for {asked} ({expected}): no registered model has the size found")


def check_classes(found: FoundSize, num_classes: int | None) -> None:
    """The head has the number of classes asked for, if one was asked for."""
    if num_classes is not None and num_classes != found.num_classes:
        raise CheckpointError(
            f"its head has {found.num_classes} classes, asked for {num_classes}: leave num_classes out to take them"
        )


def check_names_and_shapes(state: StateDict, model: nn.Module) -> None:
    """Every parameter is there, nothing is left over, every shape fits, and so does the kind of number."""
    wanted = model.state_dict()
    expected = {name: value.shape for name, value in wanted.items()}
    missing = [name for name in expected if name not in state]
    unused = [name for name in state if name not in expected]
    if missing or unused:
        parts = [f"missing are {name_some(missing)}"] if missing else []
        parts += [f"not understood are {name_some(unused)}"] if unused else []
        if any(name.endswith(".attn.qkv.bias") for name in missing):
            parts.append("without query and value biases the model computes something else")
        raise CheckpointError("its names do not fit the model: " + "; ".join(parts))
    wrong = [f"{n} {list(state[n].shape)} instead of {list(s)}" for n, s in expected.items() if state[n].shape != s]
    if wrong:
        raise CheckpointError(f"its shapes do not fit the model: {name_some(wrong)}")
    whole = [n for n, value in wanted.items() if value.is_floating_point() and not state[n].is_floating_point()]
    if whole:
        raise CheckpointError(f"whole numbers stand in place of weights: {name_some(whole)}")


def check_biases_survived(state: StateDict, depth: int) -> None:
    """Query and value biases are not all zero in a trained model.

    Early 5.x releases of transformers read these biases of published files as zeros without a word; a model
    saved again from there has every name in place and no bias behind it. Its other biases show that it was trained.
    """
    lost = all(not state[f"blocks.{i}.attn.qkv.bias"].any() for i in range(depth))
    trained = any(state[f"blocks.{i}.mlp.fc1.bias"].any() for i in range(depth))
    if lost and trained:
        raise CheckpointError(
            "all its query and value biases are zero while other biases are not: a conversion lost them "
            "(early 5.x releases of transformers did); go back to the published file"
        )


def check_position_table(saved: Tensor | None, table: Tensor) -> None:
    """A position table stored with the weights is the fixed one that the model computes (mmaction2 stores it)."""
    if saved is None:
        return
    if saved.shape != table.shape:
        raise CheckpointError(
            f"its position table [1, tokens, width] is {list(saved.shape)}, the model's {list(table.shape)}: "
            "give the num_frames and image_size it was trained with"
        )
    if not torch.allclose(saved, table, rtol=0, atol=1e-2):  # bfloat16 keeps 8 bits of values up to 1
        raise CheckpointError("its position table is not the fixed sine-cosine one: learned tables are not supported")


def check_huggingface_config(checkpoint: Path, spec: VideoMAESpec, heads_given: bool) -> None:
    """What a Hugging Face config beside the weights says, and no tensor shows, agrees with the architecture.

    The head count of the small model is not compared: its conversion says 16 where the weights were trained with 6.
    """
    config = _huggingface_config(checkpoint)
    expected = {"num_frames": spec.num_frames, "image_size": spec.image_size}
    if not heads_given and spec.width != _SMALL_WIDTH:
        expected["num_attention_heads"] = spec.num_heads
    for key, value in expected.items():
        if config.get(key, value) != value:
            argument = "num_heads" if key == "num_attention_heads" else key
            raise CheckpointError(
                f"its config.json says {key} {config[key]}, the model has {value}: give {argument}={config[key]}"
            )


def _huggingface_config(checkpoint: Path) -> dict[str, Any]:
    """The VideoMAE config.json of a folder, or beside a file; empty where there is none."""
    folder = checkpoint if checkpoint.is_dir() else checkpoint.parent
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) and config.get("model_type") == "videomae" else {}
