"""Image networks as proposals: any ConvNet of timm, on an image or on every frame of a clip.

Source: PaPr (ECCV 2024), section 3.1 (Eq. 2), with MobileOne-S0 and ResNets as proposals in its tables 1-6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidprune.compat import ensure_torchvision
from vidprune.errors import CheckpointError, UnsupportedModelError
from vidprune.models.catalog import TIMM_PREFIX
from vidprune.models.checkpoint_checks import check_names_and_shapes
from vidprune.models.checkpoint_files import read_tensors
from vidprune.models.loading import create_model
from vidprune.proposals.base import ClipShape
from vidprune.proposals.conv_classifier import ConvClassifier, WeightedFeatures
from vidprune.proposals.macs import count_gmacs, count_norm_gmacs
from vidprune.proposals.treatment import renormalisation, resolve_treatment

_PROBE_SIDE = 64  # a ConvNet takes any size; this one costs a fraction of a millisecond


class TimmNet(ConvClassifier):
    """A ConvNet of timm, re-parameterised where it can be (MobileOne, RepVGG, ...). Every frame is a sample.

    Its feature maps are what its own head reads: stage 4 of ResNets and MobileOne, the last 1x1 convolution of
    EfficientNets.

    Args:
        architecture: timm's name.
        checkpoint: weights under timm's names, with or without a classifier; None means random ones, drawn from `seed`.
        input_treatment: "native" feeds the frames as they come, in ImageNet's normalisation, as PaPr's code does;
            "own_norm" re-normalises them to the network's own mean and std. "default" and "release" are "native":
            PaPr's code does not resize images.

    Raises:
        UnsupportedModelError: for a network that gives no feature map [B, C, h, w] of images of any size.
        CheckpointError: for weights that do not fit.
    """

    norm_scale: Tensor
    norm_shift: Tensor
    net: Any

    def __init__(
        self,
        architecture: str,
        *,
        checkpoint: str | Path | None = None,
        input_treatment: str = "default",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.name = architecture
        self.treatment = resolve_treatment(input_treatment)
        self.checkpoint_source = None if checkpoint is None else str(checkpoint)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not depend on its proposal
            torch.manual_seed(seed)
            net = create_model(f"{TIMM_PREFIX}{architecture}")
        self.net = _fuse(net) if checkpoint is None else _fill(net, checkpoint, architecture)
        self.requires_grad_(False)
        self.eval()
        _require_feature_map(self.net, architecture)
        self.num_channels = int(self.net.num_features)
        config: Any = self.net.pretrained_cfg
        scale, shift = renormalisation(config["mean"], config["std"])  # [3, 1, 1, 1] each
        self.register_buffer("norm_scale", scale, persistent=False)
        self.register_buffer("norm_shift", shift, persistent=False)

    def samples(self, clip: Tensor) -> Tensor:
        clip = clip.to(self.norm_scale.dtype)
        if self.treatment.own_norm:
            clip = clip * self.norm_scale + self.norm_shift
        return clip.transpose(1, 2).flatten(0, 1)  # [B, 3, T, H, W] -> [B * T, 3, H, W]

    def features(self, samples: Tensor) -> Tensor:
        return self.net.forward_features(samples)  # [S, C, h', w']

    def classify(self, features: Tensor) -> Tensor:
        return self.net.forward_head(features)  # [S, classes]

    def clip_maps(self, maps: Tensor, num_clips: int) -> Tensor:
        return maps.unflatten(0, (num_clips, -1))  # [B * T, h', w'] -> [B, T, h', w']

    def check_linear_head(self) -> None:
        layer = self.net.get_classifier()
        if isinstance(layer, nn.Linear) and layer.in_features == self.num_channels:
            probe = torch.randn(2, layer.in_features, 2, 3, generator=torch.Generator().manual_seed(0)).to(layer.weight)
            if torch.allclose(self.classify(probe), layer(probe.mean(dim=(2, 3))), atol=1e-4, rtol=1e-3):
                return
        raise UnsupportedModelError(
            f"the logits of {self.name} are not one linear layer on the mean of its feature maps, so a class has no "
            "weight per channel; use gradcam, or a network such as mobileone_s0 or resnet18"
        )

    def class_weights(self) -> Tensor:
        weights: Tensor = self.net.get_classifier().weight
        return weights

    def gmacs(self, clip_shape: ClipShape) -> tuple[float, float]:
        frames, *size = clip_shape
        features, whole = (count_gmacs(_Part(self.name, head), tuple(size)) for head in (False, True))
        return frames * features, frames * (whole - features)


class ChannelMean(WeightedFeatures):
    """The mean of the last feature maps over their channels: every class weight is 1 / (K C) (PaPr, Eq. 2)."""

    def sample_maps(self, samples: Tensor) -> Tensor:
        return self.net.features(samples).mean(dim=1, dtype=torch.float32)

    def gmacs(self, clip_shape: ClipShape) -> float:
        frames, *size = clip_shape  # the classifier is not counted, nor built
        return frames * count_gmacs(_Part(self.net.name, head=False), tuple(size))

    def norm_gmacs(self, clip_shape: ClipShape) -> float:
        frames, *size = clip_shape
        return frames * count_norm_gmacs(_Part(self.net.name, head=False), tuple(size))


def timm_proposal(
    net: str = "mobileone_s0",
    *,
    checkpoint: str | Path | None = None,
    input_treatment: str = "default",
    seed: int = 0,
    name: str | None = None,
) -> ChannelMean:
    """PaPr's proposal by the timm network `net`; the arguments are `TimmNet`'s."""
    classifier = TimmNet(net, checkpoint=checkpoint, input_treatment=input_treatment, seed=seed)
    return ChannelMean(classifier, name or f"timm:{net}")


mobileone_s0 = partial(timm_proposal, "mobileone_s0", name="mobileone_s0")
resnet18 = partial(timm_proposal, "resnet18", name="resnet18")
resnet50 = partial(timm_proposal, "resnet50", name="resnet50")
efficientnet_lite0 = partial(timm_proposal, "tf_efficientnet_lite0", name="efficientnet_lite0")


@dataclass(frozen=True)
class _Part:
    """Builds a network for counting: with its head, or up to its feature maps."""

    architecture: str
    head: bool

    def __call__(self) -> nn.Module:
        net: Any = _fuse(create_model(f"{TIMM_PREFIX}{self.architecture}"))
        if not self.head:
            net.forward = net.forward_features
        return net


def _fuse(net: nn.Module) -> nn.Module:
    """Parallel branches that were trained, as the one convolution each that they amount to."""
    ensure_torchvision()
    from timm.utils import reparameterize_model

    return reparameterize_model(net, inplace=True).eval()


def _fill(net: Any, checkpoint: str | Path, architecture: str) -> nn.Module:
    """`net` with the weights of a file, which may hold the branches or what they amount to, then fused."""
    state = {key.removeprefix("module."): value for key, value in read_tensors(checkpoint).items()}
    classifier = state.get(f"{net.default_cfg['classifier']}.weight")
    num_classes = 0 if classifier is None else len(classifier)
    if num_classes != net.num_classes:
        net.reset_classifier(num_classes)
    if any(".reparam_conv." in key for key in state):
        net = _fuse(net)
    # Inference does not use the counters of batches, and old files lack them.
    counters = {key: value for key, value in net.state_dict().items() if key.endswith("num_batches_tracked")}
    state = counters | state
    try:
        check_names_and_shapes(state, net)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint} does not fit timm's {architecture}: {error}") from None
    net.load_state_dict(state, strict=True)
    return _fuse(net)


def _require_feature_map(net: Any, architecture: str) -> None:
    try:
        with torch.no_grad():
            probe = next(net.parameters()).new_zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE)
            shape = list(net.forward_features(probe).shape)
        fits, got = len(shape) == 4 and shape[1] == net.num_features, f"features {shape}"
    except (AssertionError, RuntimeError, ValueError) as error:
        fits, got = False, f"an error ({str(error).splitlines()[0]})"
    if not fits:
        raise UnsupportedModelError(
            f"timm's {architecture} has no feature maps [B, C, h, w] for images of any size: {_PROBE_SIDE} pixels gave "
            f"{got}; use a ConvNet such as mobileone_s0, resnet18 or tf_efficientnet_lite0"
        )
