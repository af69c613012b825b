"""Model names, sizes and the parts of VideoMAE that need no other implementation to be checked."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vidprune.errors import CheckpointError, ConfigError, UnknownNameError
from vidprune.models import MODELS, VideoMAE, VideoMAESpec, create_model, load_model
from vidprune.models.videomae import VIDEOMAE_SPECS, sincos_position_table

TOY = VideoMAESpec(width=32, depth=2, num_heads=2, num_frames=4, image_size=32)


def test_importing_the_package_loads_no_model_library() -> None:
    code = (
        "import sys, vidprune.models as m; m.MODELS.names(); print([n for n in ('torch', 'timm') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_architecture_has_a_name_a_description_and_a_builder() -> None:
    assert set(VIDEOMAE_SPECS) <= set(MODELS.names())
    for name, spec in VIDEOMAE_SPECS.items():
        assert MODELS.describe(name)
        with torch.device("meta"):
            assert create_model(name, num_classes=5).spec == spec


def parameter_count(spec: VideoMAESpec, num_classes: int) -> int:
    """Embedding; per block two norms, fused qkv with bias, projection and a two-layer MLP; norm; head."""
    width, hidden = spec.width, spec.mlp_width
    block = (
        2 * 2 * width
        + (3 * width * width + 3 * width)
        + (width * width + width)
        + (2 * width * hidden + hidden + width)
    )
    embedding = width * 3 * math.prod(spec.tubelet) + width
    return embedding + spec.depth * block + 2 * width + (width * num_classes + num_classes)


@pytest.mark.parametrize(("name", "width", "depth", "heads", "hidden", "tokens", "total"), [
    ("videomae_small", 384, 12, 6, 1536, 1568, 22_038_544),
    ("videomae_base", 768, 12, 12, 3072, 1568, 86_544_016),
    ("videomae_large", 1024, 24, 16, 4096, 1568, 304_295_312),
    ("videomae_huge", 1280, 32, 16, 5120, 1568, 632_160_400),
    ("videomae_v2_small", 384, 12, 6, 1536, 1568, 22_038_544),
    ("videomae_v2_base", 768, 12, 12, 3072, 1568, 86_544_016),
    ("videomae_v2_giant", 1408, 40, 16, 6144, 2048, 1_012_230_672),
])  # fmt: skip
def test_published_sizes(name: str, width: int, depth: int, heads: int, hidden: int, tokens: int, total: int) -> None:
    with torch.device("meta"):
        model = create_model(name)
    spec = model.spec
    assert (spec.width, spec.depth, spec.num_heads, spec.mlp_width) == (width, depth, heads, hidden)
    assert model.token_grid.num_tokens == tokens == model.pos_embed.shape[1]
    assert model.blocks[0].attn.num_heads == heads
    assert model.input_size == (16, 224, 224)
    assert sum(p.numel() for p in model.parameters()) == parameter_count(spec, 400) == total


def test_large_runs_on_the_meta_device() -> None:
    with torch.device("meta"):
        assert create_model("videomae_large")(torch.empty(2, 3, 16, 224, 224)).shape == (2, 400)


@pytest.mark.parametrize(("positions", "width"), [(1568, 384), (2048, 1408), (7, 33)])
def test_position_table_against_a_plain_loop(positions: int, width: int) -> None:
    table = sincos_position_table(positions, width)
    assert table.shape == (1, positions, width)
    assert table.dtype == torch.float32
    for p in sorted({0, 1, 2, positions // 2, positions - 1}):
        for j in range(width):
            angle = p / math.pow(10000.0, 2 * (j // 2) / width)
            assert table[0, p, j].item() == np.float32(math.sin(angle) if j % 2 == 0 else math.cos(angle))


def test_tokens_are_in_time_row_column_order() -> None:
    model = create_model(TOY)
    clip = torch.zeros(1, 3, 4, 32, 32)
    clip[:, :, 2:4, 16:32, 0:16] = 1.0  # the tubelet t=1, h=1, w=0 of a 2 x 2 x 2 grid
    with torch.no_grad():
        difference = (model.patch_embed(clip) - model.patch_embed(torch.zeros_like(clip))).abs().sum(-1)[0]
    assert difference.nonzero().flatten().tolist() == [1 * 4 + 1 * 2 + 0]


def test_random_weights_follow_the_seed_and_say_that_they_are_random() -> None:
    models = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        models.append(create_model("videomae_tiny", num_classes=6))
    first, same, other = (m.head.weight for m in models)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert models[0].checkpoint_source is None
    assert not models[0].training


def test_other_clip_sizes_by_override() -> None:
    model = create_model("videomae_tiny", num_classes=3, num_frames=4, image_size=64)
    assert model.token_grid.shape == (2, 4, 4)
    assert torch.equal(model.pos_embed, sincos_position_table(32, 128))
    assert model(torch.zeros(1, 3, 4, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize(("overrides", "match"), [
    ({"num_frames": 5}, "num_frames must be a multiple of 2"),
    ({"image_size": 100}, "image_size of 16"),
    ({"num_heads": 5}, "num_heads 5 does not divide the width 768"),
    ({"num_frames": 0}, "at least 1"),
    ({"frames": 8}, "unknown VideoMAE setting frames: known are width"),
])  # fmt: skip
def test_impossible_settings(overrides: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        create_model("videomae_base", **overrides)


def test_a_clip_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"takes clips \[B, 3, 4, 32, 32\], got \[1, 3, 8, 32, 32\]"):
        create_model(TOY)(torch.zeros(1, 3, 8, 32, 32))


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'videomae_base'"):
        create_model("videomae_bas")
    with pytest.raises(UnknownNameError, match="did you mean 'vit_base_patch16_224'"):
        create_model("timm/vit_base_patch16_223")
    with pytest.raises(UnknownNameError, match="did you mean 'videomae_base'"):
        load_model("videomae_bas", "no/such/file.pth")


def test_timm_models_by_name(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = create_model("timm/test_vit", num_classes=4)
    assert model.num_classes == 4
    assert not model.training
    assert create_model("timm/test_vit").num_classes == 1000  # timm's own default
    with pytest.raises(ConfigError, match="timm cannot build 'timm/test_vit' with"):
        create_model("timm/test_vit", no_such_setting=1)

    save_file(model.state_dict(), tmp_path / "image.safetensors")
    loaded = load_model("timm/test_vit", tmp_path / "image.safetensors", num_classes=4)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in loaded.state_dict().items())
    assert loaded.checkpoint_source == str(tmp_path / "image.safetensors")
    with pytest.raises(CheckpointError, match=r"head.weight \[4, 64\] instead of \[1000, 64\]"):
        load_model("timm/test_vit", tmp_path / "image.safetensors")
    with pytest.raises(ConfigError, match="settings of VideoMAE, not of 'timm/test_vit'"):
        load_model("timm/test_vit", tmp_path / "image.safetensors", num_frames=8)


class OtherVideoModel(nn.Module):
    """What another package could register."""

    def __init__(self, num_classes: int = 400) -> None:
        super().__init__()
        self.head = nn.Linear(2, num_classes)


def test_models_of_other_packages_by_registered_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setitem(MODELS._targets, "other_model", "somewhere:model")
    monkeypatch.setattr(MODELS, "get", lambda name: OtherVideoModel)
    torch.save(OtherVideoModel(3).state_dict(), tmp_path / "other.pth")
    assert create_model("other_model").head.out_features == 400
    assert load_model("other_model", tmp_path / "other.pth", num_classes=3).head.out_features == 3


def test_loaded_model_is_whole_and_trainable(tmp_path: Any) -> None:
    torch.manual_seed(0)
    model = VideoMAE(TOY, num_classes=3)
    save_file(model.state_dict(), tmp_path / "toy.safetensors")
    loaded = load_model(TOY, tmp_path / "toy.safetensors")
    assert not any(value.is_meta for value in [*loaded.parameters(), *loaded.buffers()])
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    clip = torch.randn(2, 3, 4, 32, 32)
    assert torch.equal(loaded(clip), model.eval()(clip))
