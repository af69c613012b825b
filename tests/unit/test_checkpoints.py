"""Files that are no checkpoints, and checkpoints that do not fit: each is refused with one line that says why."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vidprune.errors import CheckpointError, UnknownNameError
from vidprune.models import VideoMAE, VideoMAESpec, load_model
from vidprune.models.checkpoint_files import read_tensors
from vidprune.models.videomae import videomae_spec

TOY = VideoMAESpec(width=32, depth=10, num_heads=2, num_frames=4, image_size=32)


@pytest.fixture
def state() -> dict[str, Tensor]:
    """A fitting state dict under our names, every bias away from zero."""
    torch.manual_seed(0)
    return {name: torch.randn_like(value) for name, value in VideoMAE(TOY, num_classes=7).state_dict().items()}


def refusal(path: Path, name: Any = TOY, **settings: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(name, path, **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "weights.pth")
    return folder / "weights.pth"


# Files


@pytest.mark.parametrize(("content", "reason"), [
    (b"", "is empty"),
    (b"<!DOCTYPE html><html><body>Google Drive - Virus scan warning</body></html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
    (b"just some text", "not a weight file"),
    (bytes(range(256)) * 8, "not a weight file"),
    (b'{"epoch": 3}', "no index of shards"),
    (b'{"weight_map": [1]}', "no index of shards"),
    (b'{"weight_map": {"a": 3}}', "no index of shards"),
    (b'{"weight_map": {"a": "../elsewhere.safetensors"}}', "outside its folder"),
    (b'{"weight_map": {"a": "gone.safetensors"}}', "no weight file at"),
    (b"{broken", "no index of shards"),
])  # fmt: skip
def test_files_that_are_no_checkpoints(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        read_tensors(path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file_and_folders_without_weights(tmp_path: Path) -> None:
    assert "no weight file" in refusal(tmp_path / "absent.pth")
    assert "expected one of model.safetensors, " in refusal(tmp_path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.99])
@pytest.mark.parametrize("kind", ["zip", "old", "safetensors"])
def test_truncated_files(kind: str, share: float, state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "cut.pth"
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    assert path.name in refusal(path)


class Payload:
    """Unpickling it would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("plain", [False, True])
def test_nothing_is_unpickled(plain: bool, state: dict[str, Tensor], tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "executed"
    content = {"model": state, "extra": Payload(target)}
    path.write_bytes(pickle.dumps(content)) if plain else torch.save(content, path)
    refusal(path)
    assert not target.exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    assert "VideoMAE" in refusal(saved(VideoMAE(TOY, num_classes=7), tmp_path))


@pytest.mark.parametrize(
    "content", [{"epoch": 3, "lr": 0.1}, {"model": {"epoch": 3}}, [torch.zeros(2)], {}, torch.zeros(2)]
)
def test_files_without_a_state_dict(content: Any, tmp_path: Path) -> None:
    refusal(saved(content, tmp_path))


def test_shards_that_lack_a_tensor(state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file({"head.bias": state["head.bias"]}, tmp_path / "one.safetensors")
    index = {"weight_map": {"head.bias": "one.safetensors", "head.weight": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "lack head.weight" in refusal(tmp_path)


# Names


def test_the_fixture_itself_fits(state: dict[str, Tensor], tmp_path: Path) -> None:
    loaded = load_model(TOY, saved(state, tmp_path), num_classes=7)
    assert all(torch.equal(value, state[name]) for name, value in loaded.state_dict().items())


def test_missing_names_are_listed_with_their_number(state: dict[str, Tensor], tmp_path: Path) -> None:
    kept = {name: value for name, value in state.items() if not name.endswith("mlp.fc2.bias")}
    message = refusal(saved(kept, tmp_path))
    assert "missing are blocks.0.mlp.fc2.bias, blocks.1.mlp.fc2.bias" in message
    assert "blocks.8." not in message
    assert "... (10 in all)" in message


@pytest.mark.parametrize(
    "name", ["blocks.0.gamma_1", "norm.weight", "blocks.3.attn.q_norm.weight", "cls_token", "head2.bias"]
)
def test_names_left_over_are_refused(name: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    assert f"not understood are {name}" in refusal(saved({**state, name: torch.ones(32)}, tmp_path))


@pytest.mark.parametrize("lost", ["q_bias", "v_bias"])
def test_one_of_two_biases_is_not_enough(lost: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    for i in range(TOY.depth):
        q_bias, _, v_bias = state.pop(f"blocks.{i}.attn.qkv.bias").chunk(3)
        state |= {f"blocks.{i}.attn.q_bias": q_bias, f"blocks.{i}.attn.v_bias": v_bias}
    whole = load_model(TOY, saved(state, tmp_path))
    assert torch.equal(whole.blocks[9].attn.qkv.bias[64:], state["blocks.9.attn.v_bias"])
    assert not whole.blocks[9].attn.qkv.bias[32:64].any()
    state.pop(f"blocks.9.attn.{lost}")
    kept = "v_bias" if lost == "q_bias" else "q_bias"
    message = refusal(saved(state, tmp_path))
    assert f"missing are blocks.9.attn.qkv.bias; not understood are blocks.9.attn.{kept}" in message


def test_a_wrong_layout_named_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved({f"backbone.{name}": value for name, value in state.items()}, tmp_path)
    assert "no patch_embed.proj.weight" in refusal(path, layout="huggingface")
    with pytest.raises(UnknownNameError, match="did you mean 'mmaction'"):
        load_model(TOY, path, layout="mmaction2")


def test_two_tensors_for_one_name(state: dict[str, Tensor], tmp_path: Path) -> None:
    twice = {**state, "module.fc_norm.bias": state["fc_norm.bias"].clone()}
    load_model(TOY, saved(twice, tmp_path))  # the same values twice do no harm
    twice["module.fc_norm.bias"] += 1
    assert "two different tensors claim to be fc_norm.bias" in refusal(saved(twice, tmp_path))


def test_foreign_models_are_refused(tmp_path: Path) -> None:
    assert "no patch embedding" in refusal(saved({"blocks.0.conv.weight": torch.ones(3)}, tmp_path))
    image = {"patch_embed.proj.weight": torch.ones(8, 3, 16, 16), "blocks.0.attn.qkv.bias": torch.ones(24)}
    assert "an image model" in refusal(saved(image, tmp_path))


@pytest.mark.parametrize(
    "name", ["mask_token", "decoder.blocks.0.norm1.bias", "encoder_to_decoder.weight", "module.mask_token"]
)
def test_pretraining_checkpoints_are_refused(name: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    assert "pre-training checkpoint" in refusal(saved({**state, name: torch.ones(1)}, tmp_path))


def test_an_encoder_without_a_head_is_refused(state: dict[str, Tensor], tmp_path: Path) -> None:
    encoder = {name: value for name, value in state.items() if not name.startswith("head.")}
    assert "no classification head" in refusal(saved(encoder, tmp_path))


# Sizes


def deciding_tensors(name: str) -> dict[str, Tensor]:
    """The few tensors of a model that show its size, without memory behind them."""
    spec = videomae_spec(name)
    shapes = {
        "patch_embed.proj.weight": (spec.width, 3, *spec.tubelet),
        "blocks.0.mlp.fc1.weight": (spec.mlp_width, spec.width),
        f"blocks.{spec.depth - 1}.attn.qkv.bias": (3 * spec.width,),
        "head.weight": (400, spec.width),
    }
    return {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}


@pytest.mark.parametrize(("found", "asked"), [
    ("videomae_large", "videomae_base"),
    ("videomae_base", "videomae_small"),
    ("videomae_small", "videomae_v2_base"),
    ("videomae_v2_giant", "videomae_huge"),
    ("videomae_huge", "videomae_tiny"),
])  # fmt: skip
def test_another_size_names_the_size_found(found: str, asked: str, tmp_path: Path) -> None:
    message = refusal(saved(deciding_tensors(found), tmp_path), asked)
    spec, expected = videomae_spec(found), videomae_spec(asked)
    assert f"this is {found}" in message
    assert f"(width {spec.width}, {spec.depth} blocks" in message
    assert f"asked for {asked} (width {expected.width}, {expected.depth} blocks" in message
    assert message.endswith(f"use --model {found}")


def test_a_size_that_no_name_has(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(state, tmp_path)
    assert "no registered model has the size found" in refusal(path, "videomae_base")
    assert "is none of videomae_tiny, videomae_small" in refusal(path, "auto")


@pytest.mark.parametrize("name", [None, "auto"])
def test_the_size_is_told_from_the_tensors(name: str | None, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VideoMAE(videomae_spec("videomae_tiny"), num_classes=9)
    loaded = load_model(name, saved(model.state_dict(), tmp_path))
    assert loaded.spec == videomae_spec("videomae_tiny")
    assert loaded.num_classes == 9


def test_the_number_of_classes_must_be_the_one_asked_for(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = saved(state, tmp_path)
    assert load_model(TOY, path).num_classes == 7
    assert "its head has 7 classes, asked for 400" in refusal(path, num_classes=400)


def test_a_tensor_of_another_shape(state: dict[str, Tensor], tmp_path: Path) -> None:
    state["blocks.1.norm1.weight"] = torch.ones(31)
    assert "blocks.1.norm1.weight [31] instead of [32]" in refusal(saved(state, tmp_path))


# Position tables


def test_a_stored_position_table_must_be_the_fixed_one(state: dict[str, Tensor], tmp_path: Path) -> None:
    table = VideoMAE(TOY).pos_embed
    load_model(TOY, saved({**state, "pos_embed": table}, tmp_path))
    load_model(TOY, saved({**state, "pos_embed": table.bfloat16()}, tmp_path))
    assert "learned" in refusal(saved({**state, "pos_embed": table + 0.02 * torch.randn_like(table)}, tmp_path))


def test_a_stored_position_table_tells_other_clips(state: dict[str, Tensor], tmp_path: Path) -> None:
    table = VideoMAE(VideoMAESpec(width=32, depth=1, num_heads=2, num_frames=8, image_size=32)).pos_embed
    path = saved({**state, "pos_embed": table}, tmp_path)
    assert "is [1, 16, 32], the model's [1, 8, 32]: give the num_frames" in refusal(path)
    assert load_model(TOY, path, num_frames=8).input_size == (8, 32, 32)
