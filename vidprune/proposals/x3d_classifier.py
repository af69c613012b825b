"""X3D with its classifier, for the maps that follow a predicted class."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vidprune.errors import CheckpointError, UnsupportedModelError
from vidprune.models.checkpoint_files import read_tensors
from vidprune.proposals.base import ClipShape, clip_shape
from vidprune.proposals.conv_classifier import ConvClassifier
from vidprune.proposals.nets3d import NET_SPECS, NetProposal

X3D_NETS = ("x3d_s", "x3d_m", "x3d_tiny")

_HEAD = {
    "post_conv.weight": "blocks.5.pool.post_conv.weight",
    "proj.weight": "blocks.5.proj.weight",
    "proj.bias": "blocks.5.proj.bias",
}
_KINETICS_CLASSES = 400
_HEAD_WIDTH = 2048  # of X3D-S and X3D-M


class X3DNet(ConvClassifier):
    """An X3D in two parts; a whole clip is one sample, seen as the proposal of that name sees it.

    `classify` pools the feature maps over all places and times before the head's own layers. pytorchvideo pools with a
    window of the training clip's size, which is the same on clips of that size.

    Args:
        checkpoint: pytorchvideo's layout, classifier included; None means random weights, drawn from `seed`.

    Raises:
        CheckpointError: for weights that do not fit, or without a classifier.
    """

    def __init__(
        self, name: str, *, checkpoint: str | Path | None = None, input_treatment: str = "default", seed: int = 0
    ) -> None:
        super().__init__()
        self.name = name
        self.trunk = NetProposal(NET_SPECS[name], checkpoint=checkpoint, input_treatment=input_treatment, seed=seed)
        self.checkpoint_source = self.trunk.checkpoint_source
        features: Any = self.trunk.features
        self.num_channels = int(features.blocks[-1].pool.pre_conv.out_channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.head = _head(self.num_channels) if checkpoint is None else _read_head(checkpoint, name)
        self.requires_grad_(False)
        self.eval()

    def samples(self, clip: Tensor) -> Tensor:
        return self.trunk.prepare(clip, self.trunk.input_size(clip_shape(clip)))  # [B, 3, T', H', W']

    def features(self, samples: Tensor) -> Tensor:
        return self.trunk.features_of(samples)  # [B, C, t', h', w']

    def classify(self, features: Tensor) -> Tensor:
        return self.head(features.mean(dim=(2, 3, 4), keepdim=True))  # [B, classes]

    def clip_maps(self, maps: Tensor, num_clips: int) -> Tensor:
        return maps

    def check_linear_head(self) -> None:
        raise UnsupportedModelError(
            f"{self.name} has a layer and a ReLU between its feature maps and its last layer, so a class has no weight "
            "per channel; use gradcam or scorecam, or an image network such as cam:mobileone_s0"
        )

    def class_weights(self) -> Tensor:
        raise UnsupportedModelError(f"{self.name} has no weight per class and channel; see check_linear_head")

    def gmacs(self, clip_shape: ClipShape) -> tuple[float, float]:
        head = sum(parameter.numel() for parameter in self.head.parameters() if parameter.ndim > 1)
        return self.trunk.gmacs(clip_shape), head / 1e9  # the head works on one pooled vector


def _head(channels: int, width: int = _HEAD_WIDTH, classes: int = _KINETICS_CLASSES) -> nn.Sequential:
    """Pooled features [B, C, 1, 1, 1] -> logits [B, classes], under pytorchvideo's own names."""
    layers: list[tuple[str, nn.Module]] = [
        ("post_conv", nn.Conv3d(channels, width, 1, bias=False)),
        ("post_act", nn.ReLU()),
        ("flatten", nn.Flatten()),
        ("proj", nn.Linear(width, classes)),
    ]
    return nn.Sequential(OrderedDict(layers))


def _read_head(checkpoint: str | Path, name: str) -> nn.Sequential:
    """The head of a file whose features have been read."""
    tensors = read_tensors(checkpoint)
    found = {ours: value for ours, theirs in _HEAD.items() for key, value in tensors.items() if key.endswith(theirs)}
    missing = [theirs for ours, theirs in _HEAD.items() if ours not in found]
    if missing:
        raise CheckpointError(
            f"{checkpoint} has no classifier of {name} in pytorchvideo's layout, missing are {', '.join(missing)}; a "
            f"map that follows a class needs one, proposal {name!r} does not"
        )
    width, channels = found["post_conv.weight"].shape[:2]
    head = _head(channels, width, len(found["proj.weight"]))
    head.load_state_dict(found)
    return head
