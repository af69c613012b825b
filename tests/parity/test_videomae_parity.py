"""VideoMAE against transformers' implementation: dense, pruned, and through every checkpoint layout.

The sweep over files runs at the widths of S and B with two blocks and short clips; the full models prove that every
reader gives the same bits.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.videomae_files import (
    FILES,
    LAYOUT_NAMES,
    STATES,
    clone,
    make_huggingface,
    mmaction,
    native,
    write_folder,
    write_safetensors,
)
from vidprune.compat import ensure_torchvision
from vidprune.errors import CheckpointError
from vidprune.models import VideoMAE, VideoMAESpec, load_model
from vidprune.models.checkpoints import translate
from vidprune.models.videomae import VIDEOMAE_SPECS

pytest.importorskip("transformers")
ensure_torchvision()

SIZES = ("videomae_small", "videomae_base")
CUT = {"depth": 2, "num_frames": 4, "image_size": 64}  # for the sweep over files: 32 tokens, two blocks
TOLERANCE = 1e-4


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """An empty folder, removed at once: pytest would keep a gigabyte of weights."""
    yield tmp_path
    shutil.rmtree(tmp_path)


@pytest.fixture(scope="session", params=SIZES)
def cut(request: pytest.FixtureRequest) -> tuple[VideoMAESpec, Any]:
    """Architecture and transformers model of S or B, cut to two blocks and short clips."""
    spec = replace(VIDEOMAE_SPECS[request.param], **CUT)
    return spec, make_huggingface(spec, num_classes=11)


@pytest.mark.parametrize("kind", FILES)
def test_every_file_gives_the_logits_of_transformers(kind: str, cut: tuple[VideoMAESpec, Any], folder: Path) -> None:
    spec, reference = cut
    path = FILES[kind](reference, folder)
    model = load_model(spec, path)
    clips = torch.randn(
        2, 3, spec.num_frames, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(1)
    )
    with torch.no_grad():
        expected = reference(clips.transpose(1, 2)).logits
        torch.testing.assert_close(model(clips), expected, rtol=0, atol=TOLERANCE)
    assert expected.std() > 0.5  # else the tolerance would say little
    assert model.checkpoint_source == str(path)


@pytest.mark.parametrize("kind", STATES)
def test_layout_named_is_layout_told_from_the_names(kind: str, cut: tuple[VideoMAESpec, Any]) -> None:
    state = STATES[kind](cut[1])
    named, told = translate(state, LAYOUT_NAMES.get(kind, kind)), translate(state)
    assert named.keys() == told.keys()
    assert all(torch.equal(named[name], told[name]) for name in told)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_become_float32(dtype: torch.dtype, cut: tuple[VideoMAESpec, Any], folder: Path) -> None:
    spec, reference = cut
    torch.save({name: value.to(dtype) for name, value in mmaction(reference).items()}, folder / "half.pth")
    state = load_model(spec, folder / "half.pth").state_dict()
    assert {value.dtype for value in state.values()} == {torch.float32}
    for name, value in native(reference).items():
        assert torch.equal(state[name], value.to(dtype).float()), name


def test_a_key_bias_in_the_file_is_kept(cut: tuple[VideoMAESpec, Any], folder: Path) -> None:
    spec, reference = cut
    state = dict(reference.state_dict())
    key_bias = torch.arange(spec.width) / spec.width
    for i in range(spec.depth):
        state[f"videomae.encoder.layer.{i}.attention.attention.key.bias"] = key_bias.clone()
    torch.save(state, folder / "key.pth")
    fused = load_model(spec, folder / "key.pth").state_dict()["blocks.1.attn.qkv.bias"]
    assert torch.equal(fused[spec.width : 2 * spec.width], key_bias)


@pytest.mark.parametrize("layout", ["huggingface_4", "official", "mmaction"])
def test_dropped_biases_are_refused(layout: str, cut: tuple[VideoMAESpec, Any], folder: Path) -> None:
    spec, reference = cut
    state = {n: v for n, v in STATES[layout](reference).items() if not n.endswith(("q_bias", "v_bias"))}
    torch.save(clone(state), folder / "lost.pth")
    with pytest.raises(CheckpointError, match=r"missing are blocks\.0\.attn\.qkv\.bias.*query and value biases"):
        load_model(spec, folder / "lost.pth")


def test_biases_zeroed_by_a_round_trip_are_refused(cut: tuple[VideoMAESpec, Any], folder: Path) -> None:
    """Early 5.x releases of transformers lost the biases of published files; saved again, every name is there."""
    spec, reference = cut
    state = clone(dict(reference.state_dict()))
    for name in state:
        if name.endswith(("query.bias", "value.bias")):
            state[name].zero_()
    torch.save(state, folder / "zeroed.pth")
    with pytest.raises(CheckpointError, match=r"query and value biases are zero.*lost them"):
        load_model(spec, folder / "zeroed.pth")


def test_lost_biases_would_fail_the_parity_above(cut: tuple[VideoMAESpec, Any], folder: Path) -> None:
    """The guard of the guard: with these weights, biases matter far beyond the tolerance."""
    spec, reference = cut
    model = load_model(spec, write_safetensors("native")(reference, folder))
    clips = torch.randn(
        1, 3, spec.num_frames, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(2)
    )
    with torch.no_grad():
        whole = model(clips)
        for block in model.blocks:
            block.attn.qkv.bias.zero_()
        assert (model(clips) - whole).abs().max() > 100 * TOLERANCE


def test_small_has_six_heads_whatever_its_config_says(folder: Path) -> None:
    spec = replace(VIDEOMAE_SPECS["videomae_small"], **CUT)
    reference = make_huggingface(spec, num_classes=3)
    reference.config.num_attention_heads = 16
    path = write_folder("huggingface_4", "model.safetensors")(reference, folder)
    assert load_model(spec, path).blocks[0].attn.num_heads == 6
    assert load_model(spec, path, num_heads=16).blocks[0].attn.num_heads == 16


@pytest.mark.parametrize(("key", "value", "match"), [
    ("num_attention_heads", 8, "num_heads=8"),
    ("num_frames", 32, "num_frames=32"),
    ("image_size", 320, "image_size=320"),
])  # fmt: skip
def test_config_that_contradicts_the_model_is_refused(key: str, value: int, match: str, folder: Path) -> None:
    spec = replace(VIDEOMAE_SPECS["videomae_base"], **CUT)
    reference = make_huggingface(spec, num_classes=3)
    setattr(reference.config, key, value)
    path = write_folder("huggingface_5", "model.safetensors")(reference, folder)
    with pytest.raises(CheckpointError, match=f"config.json says {key}.*{match}"):
        load_model(spec, path)
    given = {"num_heads" if key == "num_attention_heads" else key: value}
    assert load_model(spec, path, **given).spec == replace(spec, **given)


@pytest.fixture(scope="session", params=SIZES)
def full(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Any, VideoMAE]]:
    """Name, transformers model and ours of S or B at full size; ours is read from a Hugging Face folder."""
    name = request.param
    reference = make_huggingface(VIDEOMAE_SPECS[name], num_classes=400)
    folder = tmp_path_factory.mktemp(name)
    reference.save_pretrained(folder)
    yield name, reference, load_model(name, folder)
    shutil.rmtree(folder)


def full_clip() -> Tensor:
    return torch.randn(1, 3, 16, 224, 224, generator=torch.Generator().manual_seed(3))


def test_full_size_dense_logits(full: tuple[str, Any, VideoMAE]) -> None:
    _, reference, model = full
    with torch.no_grad():
        expected = reference(full_clip().transpose(1, 2)).logits
        torch.testing.assert_close(model(full_clip()), expected, rtol=0, atol=TOLERANCE)
    assert expected.std() > 0.5


@pytest.mark.parametrize("keep_ratio", ["0.7", "0.5", "0.45", "0.35", "0.3"])
def test_full_size_pruned_logits(keep_ratio: str, full: tuple[str, Any, VideoMAE]) -> None:
    """The same kept tokens: gathered after the position embedding here, masked inside transformers' embedding there."""
    _, reference, model = full
    num_kept = 1568 * int(keep_ratio[2:].ljust(2, "0")) // 100
    assert num_kept == {"0.7": 1097, "0.5": 784, "0.45": 705, "0.35": 548, "0.3": 470}[keep_ratio]
    order = torch.randperm(1568, generator=torch.Generator().manual_seed(num_kept))
    kept_index = order[:num_kept].sort().values.unsqueeze(0)  # [1, K]
    dropped = torch.ones(1, 1568, dtype=torch.bool).scatter_(1, kept_index, False)  # transformers: True = dropped
    with torch.no_grad():
        hidden = reference.videomae(full_clip().transpose(1, 2), bool_masked_pos=dropped).last_hidden_state
        expected = reference.classifier(reference.fc_norm(hidden.mean(1)))
        tokens = model._pos_embed(model.patch_embed(full_clip()))  # [1, 1568, D]
        tokens = tokens.gather(1, kept_index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))  # [1, K, D]
        logits = model.forward_head(model.norm(model.blocks(tokens)))
    assert hidden.shape[1] == num_kept
    torch.testing.assert_close(logits, expected, rtol=0, atol=TOLERANCE)


def test_every_reader_gives_the_same_bits_at_full_size(full: tuple[str, Any, VideoMAE]) -> None:
    """With the dense parity above: the logits of transformers through every reader, for all of S and B."""
    _, reference, model = full
    loaded = model.state_dict()
    for kind, write in STATES.items():
        translated = translate(write(reference))
        translated.pop("pos_embed", None)
        assert translated.keys() == loaded.keys(), kind
        assert all(torch.equal(translated[name], value) for name, value in loaded.items()), kind
