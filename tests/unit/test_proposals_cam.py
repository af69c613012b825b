"""The class activation maps, against loops, finite differences, cv2 and pytorchvideo's own network."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vidprune.config import demo_file
from vidprune.errors import CheckpointError, ConfigError, UnsupportedModelError
from vidprune.proposals import create_proposal
from vidprune.proposals.conv_classifier import WeightedFeatures
from vidprune.proposals.x3d_tiny import build_x3d_tiny
from vidprune.weights_io import read_state_dict

LINEAR = "regnetx_002"  # pool, then one linear layer
DEEP_HEAD = "mobilenetv3_small_050"  # pool, a convolution, an activation, then the last layer
SIDE = 96  # 3 x 3 places on the feature maps


def clip(frames: int = 2, side: int = SIDE, batch: int = 2, seed: int = 0) -> Tensor:
    """Squares of 32 pixels, bright and dark, under noise: places and frames that differ."""
    generator = torch.Generator().manual_seed(seed)
    squares = 4 * torch.randn(batch, 3, frames, side // 32, side // 32, generator=generator)
    squares = squares.repeat_interleave(32, dim=3).repeat_interleave(32, dim=4)
    offset = 3 * torch.randn(batch, 3, frames, 1, 1, generator=generator)
    return squares[..., :side, :side] + offset + torch.randn(batch, 3, frames, side, side, generator=generator)


@cache
def proposal(name: str) -> WeightedFeatures:
    """`name`, with activations that differ from place to place and from frame to frame."""
    made = create_proposal(name)
    generator = torch.Generator().manual_seed(3)
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1, generator=generator)
            module.running_var.uniform_(0.2, 1.0, generator=generator)
        if isinstance(module, nn.Linear):
            module.weight.normal_(generator=generator)
    if name.endswith(LINEAR):
        # A deep random network answers nearly alike everywhere; the last layer is made to look at what differs alone.
        common = made.net.features(made.net.samples(clip())).mean(dim=(0, 2, 3))  # [C]
        weights = made.net.class_weights()
        weights -= torch.outer(weights @ common, common) / common.square().sum()
    return made


def parts(made: WeightedFeatures, pixels: Tensor, b: int, t: int) -> tuple[np.ndarray, np.ndarray]:
    """Feature maps [C, h, w] and logits [classes] of one frame, alone, by timm's own functions."""
    net = made.net.net
    with torch.no_grad():
        features = net.forward_features(pixels[b : b + 1, :, t])
        return features[0].double().numpy(), net(pixels[b : b + 1, :, t])[0].double().numpy()


def close(found: Tensor, expected: np.ndarray) -> bool:
    scale = np.abs(expected).max()
    assert scale > 0, "nothing to compare"
    return bool(np.abs(found.numpy() - expected).max() < 1e-4 * scale)


def test_cam_weighs_by_the_predicted_class() -> None:
    made, pixels = proposal(f"cam:{LINEAR}"), clip()
    found = made(pixels)
    assert found.shape == (2, 2, 3, 3)
    labels = set()
    for b in range(2):
        for t in range(2):
            features, logits = parts(made, pixels, b, t)
            label = int(logits.argmax())
            row = made.net.net.head.fc.weight[label].double().numpy()
            assert close(found[b, t], sum(w * f for w, f in zip(row, features, strict=True)))
            labels.add(label)
    assert len(labels) > 1, "every frame has the same class, so a wrong class would not show"


def test_fc_weighted_sums_over_all_classes() -> None:
    made, pixels = proposal(f"fc_weighted:{LINEAR}"), clip()
    found = made(pixels)
    weights = made.net.net.head.fc.weight.double().numpy()  # [classes, C]
    features, _ = parts(made, pixels, 1, 0)
    expected = np.zeros((3, 3))
    for row in weights:
        expected += sum(w * f for w, f in zip(row, features, strict=True)) / len(weights)
    assert close(found[1, 0], expected)


def test_gradcam_where_the_head_is_linear_is_the_positive_part_of_cam() -> None:
    pixels = clip()
    gradcam, cam = proposal(f"gradcam:{LINEAR}")(pixels), proposal(f"cam:{LINEAR}")(pixels)
    assert close(gradcam, cam.clamp(min=0).numpy() / 9)  # the mean over 9 places spreads the gradient
    assert (cam < 0).any(), "no negative place, so a missing ReLU would not show"


def test_gradcam_by_finite_differences() -> None:
    """The gradient's mean over places, from the logit's change when a whole feature map is raised by a little."""
    made, pixels = proposal(f"gradcam:{DEEP_HEAD}"), clip(frames=1, batch=1)
    found = made(pixels)
    features, logits = parts(made, pixels, 0, 0)
    label, expected = int(logits.argmax()), np.zeros(features.shape[1:])
    double = made.net.net.double()
    with torch.no_grad():
        for k, feature in enumerate(features):
            raised = torch.from_numpy(np.stack([features, features]))
            raised[0, k] += 1e-4
            raised[1, k] -= 1e-4
            up, down = double.forward_head(raised)[:, label].tolist()
            expected += (up - down) / 2e-4 / feature.size * feature
    double.float()
    assert close(found[0, 0], np.maximum(expected, 0))


def test_gradcam_of_x3d_with_trained_weights_is_autograd_on_the_whole_network() -> None:
    weights = demo_file("x3d_tiny.safetensors")
    made = create_proposal("gradcam:x3d_tiny", checkpoint=weights)
    net = build_x3d_tiny(24).eval()
    net.load_state_dict(read_state_dict(weights))
    pixels = clip(frames=8, side=64)[..., :56, :56]
    seen: list[Tensor] = []
    net.blocks[-1].pool.pre_act.register_forward_hook(lambda _m, _i, output: seen.append(output))
    logits = net(pixels)
    gradient = torch.autograd.grad(logits.max(dim=1).values.sum(), seen[0])[0]
    expected = (gradient.mean(dim=(2, 3, 4), keepdim=True) * seen[0]).sum(dim=1).clamp(min=0)
    found = made(pixels)
    assert found.shape == (2, 4, 7, 7)
    assert close(found, expected.detach().numpy())
    with torch.no_grad():
        assert torch.allclose(made.net.classify(made.net.features(made.net.samples(pixels))), logits, atol=1e-4)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_gradcam_works_where_gradients_are_off_and_leaves_none(mode: type) -> None:
    made = proposal(f"gradcam:{LINEAR}")
    with mode():
        found = made(clip())
    assert torch.equal(found, made(clip()))
    assert not found.requires_grad
    assert all(parameter.grad is None for parameter in made.parameters())


def test_scorecam_is_one_masked_pass_per_channel() -> None:
    made, pixels = proposal(f"scorecam:{LINEAR}"), clip(frames=1, batch=1)
    found = made(pixels)
    features, logits = parts(made, pixels, 0, 0)
    label = int(logits.argmax())
    masked = []
    for feature in features:
        mask = cv2.resize(feature, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR)
        span = mask.max() - mask.min()
        mask = (mask - mask.min()) / span if span > 0 else np.zeros_like(mask)
        masked.append(pixels[0, :, 0] * torch.from_numpy(mask).float())
    with torch.no_grad():
        scores = made.net.net(torch.stack(masked))[:, label].double().numpy()
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    expected = np.maximum(sum(w * f for w, f in zip(weights, features, strict=True)), 0)
    assert close(found[0, 0], expected)
    assert weights.max() < 0.99, "one channel alone decides"


def test_scorecam_of_a_few_channels_takes_the_strongest() -> None:
    made, pixels = create_proposal(f"scorecam:{LINEAR}", num_channels=2), clip(frames=1, batch=1)
    features, _ = parts(made, pixels, 0, 0)
    strongest = np.argsort(-features.mean(axis=(1, 2)), kind="stable")[:2]
    # What is left is a mix of these two maps with positive weights that add up to 1.
    a, b = (features[k].ravel() for k in strongest)
    found = made(pixels)[0, 0].double().numpy().ravel()
    weight = ((found - b) @ (a - b)) / ((a - b) @ (a - b))
    assert 0 < weight < 1
    assert np.abs(weight * a + (1 - weight) * b - found).max() < 1e-5 * np.abs(found).max()


def test_scorecam_of_clips_masks_in_space_and_time() -> None:
    made = create_proposal("scorecam:x3d_tiny", num_channels=3)
    assert made(clip(frames=4, side=32)).shape == (2, 4, 7, 7)


@pytest.mark.parametrize("family", ["cam", "fc_weighted", "gradcam", "scorecam"])
def test_every_frame_is_on_its_own(family: str) -> None:
    made = create_proposal(f"{family}:{LINEAR}", **({"num_channels": 3} if family == "scorecam" else {}))
    pixels = clip()
    together = made(pixels)
    alone = torch.stack([torch.cat([made(pixels[b : b + 1, :, t : t + 1])[0] for t in range(2)]) for b in range(2)])
    assert torch.allclose(together, alone, rtol=1e-4, atol=1e-5 * float(together.abs().max()))


def executed_gmacs(made: WeightedFeatures, pixels: Tensor) -> float:
    """Weights times outputs of every layer that a forward pass runs."""
    macs = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal macs
        macs += module.weight[0].numel() * output.numel()

    layers = [m for m in made.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    handles = [layer.register_forward_hook(count) for layer in layers]
    made(pixels)
    for handle in handles:
        handle.remove()
    return macs / 1e9


def test_costs_are_what_runs() -> None:
    pixels, shape = clip(frames=2, side=64, batch=1), (2, 64, 64)
    mean = create_proposal(f"timm:{LINEAR}")
    head = 2 * 368 * 1000 / 1e9  # two frames
    assert executed_gmacs(mean, pixels) == pytest.approx(mean.gmacs(shape))
    for family, extra in (("cam", head), ("fc_weighted", 0.0), ("gradcam", head)):
        made = create_proposal(f"{family}:{LINEAR}")
        assert executed_gmacs(made, pixels) == pytest.approx(mean.gmacs(shape) + extra)
        backward = head if family == "gradcam" else 0.0  # hooks see no backward pass
        assert made.gmacs(shape) == pytest.approx(mean.gmacs(shape) + extra + backward)
    score = create_proposal(f"scorecam:{LINEAR}", num_channels=4)
    assert executed_gmacs(score, pixels) == pytest.approx(score.gmacs(shape))
    assert create_proposal(f"scorecam:{LINEAR}").gmacs(shape) == pytest.approx(369 * (mean.gmacs(shape) + head))


def test_heads_that_a_method_cannot_use_are_named(tmp_path: Path) -> None:
    for name in (f"cam:{DEEP_HEAD}", f"fc_weighted:{DEEP_HEAD}"):
        with pytest.raises(UnsupportedModelError, match=r"mobilenetv3_small_050 are not one linear layer.*use gradcam"):
            create_proposal(name)
    with pytest.raises(UnsupportedModelError, match="x3d_tiny has a layer and a ReLU between"):
        create_proposal("cam:x3d_tiny")
    with pytest.raises(ConfigError, match="num_channels must be at least 1, or None for all, got 0"):
        create_proposal(f"scorecam:{LINEAR}", num_channels=0)
    features = create_proposal("x3d_tiny").features.state_dict()
    torch.save(features, tmp_path / "headless.pth")
    with pytest.raises(CheckpointError, match=r"no classifier of x3d_tiny .* blocks\.5\.proj\.weight"):
        create_proposal("gradcam:x3d_tiny", checkpoint=tmp_path / "headless.pth")
