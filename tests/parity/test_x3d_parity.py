"""The network proposals against pytorchvideo's whole models and against arithmetic done in NumPy."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vidprune.compat import ensure_torchvision
from vidprune.proposals import create_proposal
from vidprune.proposals.treatment import resample
from vidprune.proposals.x3d_tiny import build_x3d_tiny

ensure_torchvision()
hub = pytest.importorskip("pytorchvideo.models.hub")

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406]).reshape(3, 1, 1, 1)
IMAGENET_STD = np.array([0.229, 0.224, 0.225]).reshape(3, 1, 1, 1)


def scramble(net: nn.Module, seed: int = 0) -> nn.Module:
    """Random factors for every batch norm, and statistics that keep the signal alive; fresh ones are identity."""
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm3d)]
    for module in norms:
        module.weight.data.uniform_(0.5, 1.5, generator=generator)
        module.bias.data.uniform_(-0.3, 0.3, generator=generator)
        module.momentum = 1.0  # one pass sets the statistics
    features = torch.randn(2, 3, 2, 48, 48, generator=generator)
    with torch.no_grad():
        for block in net.train().blocks[:5]:
            features = block(features)
        if hasattr(net.blocks[5], "pool") and hasattr(net.blocks[5].pool, "pre_conv"):
            net.blocks[5].pool.pre_norm(net.blocks[5].pool.pre_conv(features))
    return net.eval()


class _Seen(Exception):  # noqa: N818  (it ends a forward pass, nothing is wrong)
    pass


def hooked_features(net: nn.Module, module: nn.Module, clip: Tensor) -> Tensor:
    """What `module` puts out in a forward pass of the whole network, which ends there: its pool wants large clips."""
    seen: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        seen.append(output)
        raise _Seen

    handle = module.register_forward_hook(keep)
    with torch.no_grad(), pytest.raises(_Seen):
        net(clip)
    handle.remove()
    return seen[0]


@pytest.fixture(scope="module")
def x3d_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    torch.manual_seed(0)
    net = scramble(hub.x3d_s(pretrained=False))
    path = tmp_path_factory.mktemp("x3d") / "X3D_S.pyth"
    torch.save({"model_state": net.state_dict()}, path)
    return net, path


def test_x3d_equals_the_whole_model(x3d_file: tuple[nn.Module, Path]) -> None:
    net, path = x3d_file
    clip = torch.randn(1, 3, 3, 32, 64, dtype=torch.float64)  # random weights amplify rounding: compare in float64
    net = copy.deepcopy(net).double()
    expected = hooked_features(net, net.blocks[5].pool.pre_act, clip)
    assert expected.shape == (1, 432, 3, 1, 2)
    proposal = create_proposal("x3d_s", checkpoint=path, input_treatment="native").double()
    with torch.no_grad():
        features, found = proposal.features(clip), proposal(clip)
    assert expected.mean(1).std() > 0.01  # a constant map would prove nothing
    torch.testing.assert_close(features, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(found, expected.mean(1).float())
    assert proposal.checkpoint_source == str(path)


def test_x3d_s_and_x3d_m_are_one_network(x3d_file: tuple[nn.Module, Path]) -> None:
    clip = torch.randn(1, 3, 2, 32, 32)
    maps = [create_proposal(n, checkpoint=x3d_file[1], input_treatment="native")(clip) for n in ("x3d_s", "x3d_m")]
    assert torch.equal(*maps)


def test_slowonly_equals_the_model_without_its_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = scramble(hub.slow_r50(pretrained=False))
    torch.save({"model_state": net.state_dict()}, tmp_path / "slow.pyth")
    clip = torch.randn(1, 3, 2, 64, 80)
    expected = clip
    with torch.no_grad():
        for block in net.blocks[:5]:  # all but the head, whose pool is made for 8 frames of 224
            expected = block(expected)
        proposal = create_proposal("slowonly_r50", checkpoint=tmp_path / "slow.pyth", input_treatment="native")
        found = proposal(clip)
    assert expected.shape == (1, 2048, 2, 2, 3)
    assert expected.mean(1).std() > 0.01
    torch.testing.assert_close(found, expected.mean(1), rtol=1e-3, atol=1e-3)


def interpolate_axis(x: np.ndarray, axis: int, size: int) -> np.ndarray:
    """Linear interpolation with aligned corners along one axis: sample j lies at j (n - 1) / (size - 1)."""
    n = x.shape[axis]
    out = []
    for j in range(size):
        position = j * (n - 1) / (size - 1) if size > 1 else 0.0
        left = min(int(position), n - 1)
        right = min(left + 1, n - 1)
        weight = position - left
        out.append((1 - weight) * np.take(x, left, axis) + weight * np.take(x, right, axis))
    return np.stack(out, axis)


def test_release_resampling_equals_numpy() -> None:
    clip = torch.randn(2, 3, 16, 22, 31, dtype=torch.float64)
    expected = clip.numpy()
    for axis, size in ((2, 8), (3, 16), (4, 40)):
        expected = interpolate_axis(expected, axis, size)
    np.testing.assert_allclose(resample(clip, (8, 16, 40)).numpy(), expected, atol=1e-12)
    # 16 -> 8 frames reads positions 15 j / 7: frame 1 of the result is a blend of frames 2 and 3.
    blend = resample(clip, (8, 22, 31))[:, :, 1]
    torch.testing.assert_close(blend, clip[:, :, 2] * 6 / 7 + clip[:, :, 3] / 7)
    assert resample(clip, (16, 22, 31)) is clip


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    net = scramble(build_x3d_tiny(num_classes=7))
    path = tmp_path_factory.mktemp("tiny") / "x3d_tiny.safetensors"
    save_file(net.state_dict(), path)
    return path


@pytest.mark.parametrize("own_norm", [False, True])
def test_release_is_native_on_the_resampled_clip(tiny_file: Path, own_norm: bool) -> None:
    clip = torch.randn(2, 3, 16, 40, 48)
    small = clip.numpy().astype(np.float64)
    for axis, size in ((2, 8), (3, 56), (4, 56)):
        small = interpolate_axis(small, axis, size)
    native = create_proposal("x3d_tiny", checkpoint=tiny_file, input_treatment="native")
    released = create_proposal("x3d_tiny", checkpoint=tiny_file, own_norm=own_norm)  # trained on ImageNet's: no change
    with torch.no_grad():
        expected, found = native(torch.from_numpy(small).float()), released(clip)
    assert tuple(found.shape[2:]) == (7, 7)
    assert found.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("options", [{"input_treatment": "own_norm"}, {"input_treatment": "release", "own_norm": True}])
@pytest.mark.parametrize("size", [(8, 160, 160), (3, 32, 48)])
def test_own_norm_is_what_the_network_was_trained_with(options: dict[str, Any], size: tuple[int, int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, *size)) / 255
    for_vit = torch.from_numpy((pixels - IMAGENET_MEAN) / IMAGENET_STD).float()
    for_x3d = torch.from_numpy((pixels - 0.45) / 0.225).float()
    if "own_norm" in options:
        for axis, n in ((2, 8), (3, 160), (4, 160)):
            for_x3d = torch.from_numpy(interpolate_axis(for_x3d.numpy(), axis, n))
    proposal = create_proposal("x3d_s", **options)
    proposal.features = nn.Identity()  # what the network would have seen, averaged over channels
    torch.testing.assert_close(proposal(for_vit), for_x3d.mean(1).float(), rtol=1e-4, atol=1e-4)
    for channel in range(3):  # a mean of channels could hide a swap of their constants
        alone = torch.zeros_like(for_vit)
        alone[:, channel] = 1.0
        scale = float(IMAGENET_STD[channel, 0, 0, 0]) / 0.225
        shift = float((IMAGENET_MEAN.sum() - 3 * 0.45) / 0.225)
        torch.testing.assert_close(proposal(alone).mean().item(), (scale + shift) / 3, rtol=1e-4, atol=1e-4)
