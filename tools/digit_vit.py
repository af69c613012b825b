"""The image ViT on digit canvases and the light ConvNet that proposes where to look: networks, weight files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import TypeVar

import torch
from digit_canvases import NUM_CLASSES, PATCH, SIDE
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vidprune.compat import ensure_torchvision
from vidprune.proposals.base import ClipShape, Proposal
from vidprune.proposals.macs import count_gmacs
from vidprune.types import TokenGrid

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)

Net = TypeVar("Net", bound=nn.Module)
GRID = SIDE // PATCH
WEIGHTS = Path(__file__).parent / "data"


def build_vit() -> VisionTransformer:
    """A plain timm ViT with class token: 100 patch tokens, 0.08 GMACs, 0.7 M parameters."""
    return VisionTransformer(
        img_size=SIDE, patch_size=PATCH, embed_dim=96, depth=6, num_heads=4, num_classes=NUM_CLASSES
    )


class _Mixer(nn.Module):
    """Residual depthwise 5x5 and pointwise convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = _conv(width, width, 5, groups=width)
        self.pointwise = _conv(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.pointwise(self.depthwise(x))


class DigitNet(nn.Module):
    """A ConvNet of 4 MMACs with a 10x10 map of 48 channels, [B, 3, H, W] -> logits [B, classes]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            _conv(3, 12, 3, stride=2), _conv(12, 24, 3, stride=2), _conv(24, 48, 3, stride=2), *map(_Mixer, (48,) * 3)
        )
        self.head = nn.Linear(48, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


class DigitNetProposal(Proposal):
    """The channel mean of DigitNet's last features (PaPr Eq. 2), [B, 1, H / 8, W / 8]."""

    name = "digit_net"
    description = "the digit canvases' own ConvNet"

    def __init__(self, net: DigitNet, source: str | None = None) -> None:
        super().__init__()
        self.checkpoint_source = source
        self.features = _folded(net.features).to(memory_format=torch.channels_last)
        self.requires_grad_(False)
        self.eval()

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        image = clip[:, :, 0].contiguous(memory_format=torch.channels_last)  # [B, 3, 1, H, W] -> [B, 3, H, W]
        return self.features(image).mean(dim=1, keepdim=True, dtype=torch.float32)

    def gmacs(self, clip_shape: ClipShape) -> float:
        return count_gmacs(_features_of_clip, clip_shape)


def _folded(features: nn.Module) -> nn.Module:
    """A copy whose convolutions do the work of the batch norms behind them, as in `vidprune.proposals.folding`."""
    features = copy.deepcopy(features).eval()
    for module in features.modules():
        if isinstance(module, nn.Sequential) and len(module) == 3 and isinstance(module[1], nn.BatchNorm2d):
            module[0], module[1] = fuse_conv_bn_eval(module[0], module[1]), nn.Identity()
    return features


def _features_of_clip() -> nn.Module:
    return nn.Sequential(nn.Flatten(1, 2), DigitNet().features)  # [1, 3, 1, H, W] -> [1, 3, H, W]


def load_vit(folder: Path = WEIGHTS) -> VisionTransformer:
    """The trained ViT, float32, in eval mode."""
    return _load(build_vit(), folder / "digit_vit.safetensors")


def load_digit_net(folder: Path = WEIGHTS) -> DigitNet:
    """The trained ConvNet, float32, in eval mode."""
    return _load(DigitNet(), folder / "digit_net.safetensors")


def _load(net: Net, path: Path) -> Net:
    net.load_state_dict(load_file(path))  # copied into float32 parameters
    return net.eval()


def _conv(width_in: int, width: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(width_in, width, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
