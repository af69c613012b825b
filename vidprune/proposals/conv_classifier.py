"""A ConvNet classifier in two parts, and the maps that are weighted sums of its last feature maps."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from vidprune.proposals.base import ClipShape, Proposal, check_clip
from vidprune.types import TokenGrid


class ConvClassifier(nn.Module, ABC):
    """A ConvNet cut where it still knows places: `features`, then `classify`. In eval mode, without gradients.

    A sample is what it classifies in one go: one frame for an image network, one clip for a video network.

    Attributes:
        name: of the network, as in `timm:NAME`.
        checkpoint_source: the weight file, None for random weights.
        num_channels: C, how many feature maps there are.
    """

    name: str
    checkpoint_source: str | None
    num_channels: int

    @abstractmethod
    def samples(self, clip: Tensor) -> Tensor:
        """What `features` takes, of clips [B, 3, T, H, W]: S samples, resized and normalised as the network wants."""

    @abstractmethod
    def features(self, samples: Tensor) -> Tensor:
        """The last feature maps [S, C, h', w'] or [S, C, t', h', w']."""

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits [S, classes] of the feature maps."""

    @abstractmethod
    def clip_maps(self, maps: Tensor, num_clips: int) -> Tensor:
        """Maps of samples [S, ...] as maps of clips [B, t', h', w']."""

    @abstractmethod
    def check_linear_head(self) -> None:
        """Raise `UnsupportedModelError` unless the logits are one linear layer on the mean of the feature maps."""

    @abstractmethod
    def class_weights(self) -> Tensor:
        """The weights [classes, C] of that layer."""

    @abstractmethod
    def gmacs(self, clip_shape: ClipShape) -> tuple[float, float]:
        """Giga multiply-accumulates per clip of (T, H, W) pixels, of `features` and of `classify`."""


class WeightedFeatures(Proposal):
    """The weighted sum of a network's last feature maps, sum_k a_k f_k; a subclass says what the a_k are."""

    def __init__(self, net: ConvClassifier, name: str) -> None:
        super().__init__()
        self.net = net
        self.name = name
        self.checkpoint_source = net.checkpoint_source
        self.requires_grad_(False)
        self.eval()

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        check_clip(clip)
        maps = self.sample_maps(self.net.samples(clip))  # [S, ...]
        return self.net.clip_maps(maps, len(clip)).float()

    @abstractmethod
    def sample_maps(self, samples: Tensor) -> Tensor:
        """One map per sample, [S, h', w'] or [S, t', h', w']."""

    def gmacs(self, clip_shape: ClipShape) -> float:
        return sum(self.net.gmacs(clip_shape))


def weigh_channels(features: Tensor, weights: Tensor) -> Tensor:
    """sum_k a_k f_k in float32: feature maps [S, C, ...] and weights [S, C] -> maps [S, ...]."""
    shape = (*weights.shape, *(1 for _ in features.shape[2:]))
    return (features.float() * weights.float().view(shape)).sum(dim=1)
