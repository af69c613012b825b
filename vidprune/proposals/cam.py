"""Class activation maps as proposals, for comparison with PaPr's channel mean: what its tables III and IV measure.

Sources: CAM (Zhou et al., CVPR 2016), Grad-CAM (Selvaraju et al., ICCV 2017), Score-CAM (Wang et al., CVPR workshops
2020); as proposals in PaPr (ECCV 2024), appendix D.2 and D.3. All but `FCWeighted` follow the class that the network
itself predicts, per frame for image networks and per clip for video networks.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.proposals.base import ClipShape
from vidprune.proposals.conv_classifier import ConvClassifier, WeightedFeatures, weigh_channels
from vidprune.proposals.nets2d import TimmNet
from vidprune.proposals.x3d_classifier import X3D_NETS, X3DNet

_PASSES_AT_ONCE = 32  # masked copies of a sample in one batch of Score-CAM: bounds memory


class CAM(WeightedFeatures):
    """a_k = w_c^k, the weight of channel k for the predicted class c. Only where the logits are linear in the means."""

    def __init__(self, net: ConvClassifier, name: str) -> None:
        net.check_linear_head()
        super().__init__(net, name)

    def sample_maps(self, samples: Tensor) -> Tensor:
        features = self.net.features(samples)  # [S, C, h', w']
        predicted = self.net.classify(features).argmax(dim=1)  # [S]
        return weigh_channels(features, self.net.class_weights()[predicted])


class FCWeighted(CAM):
    """a_k = sum_c w_c^k / C, over all classes: Eq. 1 of PaPr with the trained last layer left in (table IV, "FC").

    The paper gives no formula for that row; it is not CAM, whose figures in table III differ.
    """

    def sample_maps(self, samples: Tensor) -> Tensor:
        features = self.net.features(samples)  # [S, C, h', w']
        weights = self.net.class_weights().float().mean(dim=0)  # [C]
        return weigh_channels(features, weights.expand(len(features), -1))

    def gmacs(self, clip_shape: ClipShape) -> float:
        return self.net.gmacs(clip_shape)[0]  # no class is predicted


class GradCAM(WeightedFeatures):
    """a_k = the mean over places of d(logit of the predicted class) / d f_k; then ReLU (Grad-CAM, Eq. 1 and 2).

    The gradient goes back through the head alone. Where the logits are linear in the means this is the ReLU of CAM.
    Places at 0 tie, and ties go to the lower index.
    """

    def sample_maps(self, samples: Tensor) -> Tensor:
        with torch.no_grad():
            features = self.net.features(samples)
        # Proposals are asked under no_grad or inference_mode, where nothing can be differentiated.
        with torch.inference_mode(False), torch.enable_grad():
            variable = features.detach().clone().requires_grad_()
            logits = self.net.classify(variable)  # [S, classes]
            best = logits.max(dim=1).values.sum()  # samples do not mix, so each gets its own gradient
            (gradient,) = torch.autograd.grad(best, variable)  # [S, C, ...]
        return weigh_channels(features, gradient.flatten(2).mean(dim=2)).relu()

    def gmacs(self, clip_shape: ClipShape) -> float:
        features, classify = self.net.gmacs(clip_shape)
        return features + 2 * classify  # back through the head, to its input only: the same products once more


class ScoreCAM(WeightedFeatures):
    """a_k = softmax over k of the predicted class's logit on the input masked by f_k; then ReLU.

    The mask is f_k resized to the input and stretched to [0, 1] (Score-CAM, section 3.2). The paper subtracts a
    baseline's logit, which is the same for every k and cancels in the softmax. One forward pass per channel: 1024 for
    MobileOne.

    Args:
        num_channels: only the channels with the highest mean activation get a pass and a weight; None is all, as in
            the paper.
    """

    def __init__(self, net: ConvClassifier, name: str, num_channels: int | None = None) -> None:
        if num_channels is not None and num_channels < 1:
            raise ConfigError(f"num_channels must be at least 1, or None for all, got {num_channels}")
        super().__init__(net, name)
        self.num_channels = num_channels

    def sample_maps(self, samples: Tensor) -> Tensor:
        features = self.net.features(samples)  # [S, C, ...]
        predicted = self.net.classify(features).argmax(dim=1)  # [S]
        maps = []
        for sample, maps_of_one, label in zip(samples, features, predicted, strict=True):
            count = self._count(len(maps_of_one))
            chosen = maps_of_one.flatten(1).mean(dim=1).argsort(descending=True, stable=True)[:count]
            kept = maps_of_one[chosen]  # [C, ...]
            weights = self._masked_logits(sample, kept, label).softmax(dim=0)  # [C]
            maps.append(weigh_channels(kept[None], weights[None])[0].relu())
        return torch.stack(maps)

    def _masked_logits(self, sample: Tensor, features: Tensor, label: Tensor) -> Tensor:
        """The logit of class `label`, float32 [C], on the sample [3, ...] masked by each feature map of [C, ...]."""
        mode = "bilinear" if sample.ndim == 3 else "trilinear"
        logits = []
        for part in features.split(_PASSES_AT_ONCE):
            masks = F.interpolate(part[:, None].float(), size=sample.shape[1:], mode=mode)  # [c, 1, ...]
            flat = masks.flatten(1)
            low, high = flat.amin(dim=1), flat.amax(dim=1)
            span = torch.where(high > low, high - low, 1.0)  # a map that is the same everywhere masks everything
            shape = (-1, *(1 for _ in sample.shape))
            masks = (masks - low.view(shape)) / span.view(shape)
            masked = sample[None] * masks.to(sample.dtype)  # [c, 3, ...]
            every = self.net.classify(self.net.features(masked))  # [c, classes]
            logits.append(every.index_select(1, label[None])[:, 0].float())  # `every[:, label]` would read the label
        return torch.cat(logits)

    def _count(self, channels: int) -> int:
        return channels if self.num_channels is None else min(channels, self.num_channels)

    def gmacs(self, clip_shape: ClipShape) -> float:
        return (1 + self._count(self.net.num_channels)) * sum(self.net.gmacs(clip_shape))


def cam_proposal(
    method: Callable[[ConvClassifier, str], WeightedFeatures],
    family: str,
    net: str = "mobileone_s0",
    *,
    checkpoint: str | Path | None = None,
    input_treatment: str = "default",
    seed: int = 0,
) -> WeightedFeatures:
    """The proposal `FAMILY:NET`: a class activation map of a timm ConvNet, or of X3D.

    Args:
        net: timm's name of a ConvNet, or "x3d_s", "x3d_m", "x3d_tiny".
        checkpoint: weights with their classifier; None means random ones, drawn from `seed`.
        input_treatment: as for the network as a proposal of its own.

    Raises:
        UnsupportedModelError: for a network whose head the method cannot use.
        CheckpointError: for weights that do not fit, or without a classifier.
    """
    make = X3DNet if net in X3D_NETS else TimmNet
    classifier: ConvClassifier = make(net, checkpoint=checkpoint, input_treatment=input_treatment, seed=seed)
    return method(classifier, f"{family}:{net}")


cam = partial(cam_proposal, CAM, "cam")
fc_weighted = partial(cam_proposal, FCWeighted, "fc_weighted")
gradcam = partial(cam_proposal, GradCAM, "gradcam")


def scorecam(
    net: str = "mobileone_s0",
    *,
    checkpoint: str | Path | None = None,
    input_treatment: str = "default",
    seed: int = 0,
    num_channels: int | None = None,
) -> WeightedFeatures:
    """`cam_proposal` for Score-CAM, with its option `num_channels`."""
    method = partial(ScoreCAM, num_channels=num_channels)
    return cam_proposal(method, "scorecam", net, checkpoint=checkpoint, input_treatment=input_treatment, seed=seed)
