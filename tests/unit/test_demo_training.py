"""The demo's training tools equal their plain counterparts, and the shipped weights fit and find the actor."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tool_modules import tool

pytest.importorskip("sklearn", reason="scikit-learn holds the digits")
pytest.importorskip("pytorchvideo")

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "vidprune" / "data" / "demo"


@pytest.fixture(scope="module")
def stream() -> ModuleType:
    return tool("demo_stream")


@pytest.fixture(scope="module")
def networks() -> ModuleType:
    return tool("demo_networks")


def test_folded_class_probabilities_are_products_of_the_factors() -> None:
    pack = tool("pack_demo")
    torch.manual_seed(0)
    num_digits, num_motions = len(pack.DIGITS), pack.NUM_CLASSES // len(pack.DIGITS)
    weights = {
        "head.weight": torch.randn(num_digits + num_motions, 5),
        "head.bias": torch.randn(num_digits + num_motions),
    }
    weights["other"] = torch.ones(2)
    folded = pack.fold_head(weights, "head")
    x = torch.randn(5)
    factors = weights["head.weight"] @ x + weights["head.bias"]
    digit, motion = factors[:num_digits].softmax(0), factors[num_digits:].softmax(0)
    joint = (folded["head.weight"] @ x + folded["head.bias"]).softmax(0)
    for label in range(pack.NUM_CLASSES):
        expected = digit[label // num_motions] * motion[label % num_motions]
        assert joint[label] == pytest.approx(float(expected), rel=1e-4)
    assert folded["other"] is weights["other"]


def test_the_whole_window_is_the_plain_forward(stream: ModuleType, networks: ModuleType) -> None:
    torch.manual_seed(0)
    model = networks.build_model("videomae").eval()
    clip = torch.randn(2, 3, 8, 112, 112)
    with torch.inference_mode():
        tokens = networks.vit_tokens(model, clip, stream.Stage(1.0, 7, 4), np.random.default_rng(0))
        assert torch.allclose(model.forward_head(tokens), model(clip), atol=1e-5)


def test_a_window_sees_the_position_codes_of_its_place(stream: ModuleType, networks: ModuleType) -> None:
    """With blocks switched off, a window's tokens are those of the whole crop at the window's place."""
    torch.manual_seed(0)
    model = networks.build_model("videomae").eval()
    model.blocks, model.norm = torch.nn.Identity(), torch.nn.Identity()
    clip, stage = torch.randn(1, 3, 8, 112, 112), stream.Stage(1.0, 4, 4)
    row, column = np.random.default_rng(3).integers(0, 4, 2)
    window = clip[..., 16 * row : 16 * (row + 4), 16 * column : 16 * (column + 4)]
    with torch.inference_mode():
        whole = networks.vit_tokens(model, clip, stream.Stage(1.0, 7, 4), np.random.default_rng(0))
        part = networks.vit_tokens(model, window, stage, np.random.default_rng(3))
    expected = whole.view(4, 7, 7, -1)[:, row : row + 4, column : column + 4].reshape(1, 64, -1)
    assert torch.allclose(part, expected, atol=1e-5)


def test_the_proposal_in_training_is_pytorchvideos_network(networks: ModuleType) -> None:
    torch.manual_seed(0)
    model = networks.build_model("x3d").eval()
    clip = torch.randn(2, 3, 8, 112, 112)
    small = F.interpolate(clip, (8, 56, 56), mode="trilinear", align_corners=True)
    with torch.inference_mode():
        assert torch.allclose(model(clip), model.net(small), atol=1e-5)
        assert model.features(clip).shape == (2, 144, 4, 7, 7)


@pytest.mark.parametrize("name", ["videomae", "x3d"])
def test_training_ends_on_whole_crops_of_the_task_itself(stream: ModuleType, name: str) -> None:
    recipe = stream.RECIPES[name]
    total = recipe.image_samples + recipe.zoom_clips + recipe.ramp_clips + recipe.decay_clips
    stages = [stream.stage_at(recipe, seen, step, total) for step, seen in enumerate(range(0, total, 997))]
    sides = [stage.patches for stage in stages]
    assert sides[0] < 7
    for seen in (total - recipe.decay_clips, total - 1):
        for step in (0, 1):
            assert stream.stage_at(recipe, seen, step, total) == stream.Stage(1.0, 7, 4)
    assert all(0.0 <= stage.difficulty <= 1.0 for stage in stages)


def test_token_labels_reward_the_right_answer(networks: ModuleType) -> None:
    """A layer that names the actor where it is shown, and nobody elsewhere, has almost no loss."""
    labels = torch.tensor([0, 5])  # digit 0 of the first motion, digit 1 of the second
    opacity = torch.tensor([[0.0, 200.0], [100.0, 0.0]])
    heads = networks.TokenLabels()
    heads.norm = torch.nn.Identity()
    digits, motions = heads.digit.out_features, heads.motion.out_features
    tokens = torch.zeros(2, 2, digits + motions)
    for b, n, digit, motion in ((0, 0, -1, -1), (0, 1, 0, 0), (1, 0, 1, 1), (1, 1, -1, -1)):
        tokens[b, n, digit % digits] = tokens[b, n, digits + motion % motions] = 30.0
    heads.digit, heads.motion = torch.nn.Identity(), torch.nn.Identity()
    heads.digit.forward = lambda x: x[..., :digits]  # type: ignore[method-assign]
    heads.motion.forward = lambda x: x[..., digits:]  # type: ignore[method-assign]
    heads.digit.out_features, heads.motion.out_features = digits, motions  # type: ignore[assignment]
    assert float(heads.loss(tokens, labels, opacity)) < 1e-4
    assert float(heads.loss(tokens, labels, opacity.flip(1))) > 1.0


@pytest.fixture(scope="module")
def shipped() -> Path:
    if not (DEMO / "videomae_tiny.safetensors").exists():
        pytest.skip("the demo's weights are not in this checkout")
    return DEMO


@pytest.mark.parametrize("name", ["videomae_tiny", "x3d_tiny"])
def test_shipped_weights_say_what_they_are(shipped: Path, name: str) -> None:
    from safetensors import safe_open

    with safe_open(shipped / f"{name}.safetensors", "pt") as file:
        header = file.metadata()
    assert header["architecture"] == name
    assert json.loads(header["classes"]) == (shipped / "classes.txt").read_text().splitlines()
    assert json.loads(header["mean"]) == [0.485, 0.456, 0.406]
    assert json.loads(header["view_plan"])["num_frames"] == 8
    assert "--seed" in header["training"]


def test_the_shipped_proposal_finds_the_actor(shipped: Path, stream: ModuleType) -> None:
    """On renders of validation digits, the top 30 % tokens of its map hold most of the actor; 30 % by chance."""
    from vidprune.proposals.nets3d import x3d_tiny

    train = tool("train_demo")
    frames, _, masks = stream.validation_set(24, seed=2)
    clip = stream.normalise(torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float())
    with torch.inference_mode():
        maps = x3d_tiny(checkpoint=shipped / "x3d_tiny.safetensors")(clip)
    assert float(train.coverage(maps[:, None], masks, 0.3).mean()) > 0.85
