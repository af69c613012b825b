"""Video networks as proposals: X3D-S, X3D-M, SlowOnly R50 and R101 of pytorchvideo, cut after their last features.

Source: PaPr (ECCV 2024), section 5 and tables 8-9; X3D (Feichtenhofer, CVPR 2020); SlowOnly is the slow pathway of
SlowFast (Feichtenhofer et al., ICCV 2019) in its 8x8 form.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vidprune.compat import ensure_torchvision
from vidprune.proposals.base import ClipShape, Proposal, check_clip, clip_shape
from vidprune.proposals.checkpoints import load_features
from vidprune.proposals.folding import FoldedNet
from vidprune.proposals.macs import count_gmacs, count_norm_gmacs
from vidprune.proposals.treatment import renormalisation, resample, resolve_treatment
from vidprune.proposals.x3d_tiny import X3D_TINY_FRAMES, X3D_TINY_SIDE, build_x3d_tiny
from vidprune.types import IMAGENET_MEAN, IMAGENET_STD, TokenGrid

MeanStd = tuple[tuple[float, float, float], tuple[float, float, float]]

IMAGENET: MeanStd = (IMAGENET_MEAN, IMAGENET_STD)
KINETICS: MeanStd = ((0.45, 0.45, 0.45), (0.225, 0.225, 0.225))
"""What pytorchvideo trained X3D and SlowOnly with."""


@dataclass(frozen=True)
class NetSpec:
    """What tells one network from another.

    Attributes:
        build: makes the network up to its last features.
        release_size: the (T, H, W) that PaPr's code resamples a clip of (T, H, W) to.
        mean_std: what the network was trained with, by the checkpoint's layout.
        stride: input pixels from one cell of the map to the next; n pixels give ceil(n / stride) cells.
    """

    name: str
    build: Callable[[], nn.Module]
    release_size: Callable[[ClipShape], ClipShape]
    mean_std: dict[str, MeanStd]
    stride: int = 32


class NetProposal(Proposal):
    """The channel mean of a 3-D network's last features (PaPr Eq. 2), on the network's own grid.

    Any clip length and size: nothing after the features is built, so no pool asks for a kernel's worth of frames.

    Attributes:
        fast: run a private copy with the batch norms folded in and the channels innermost (`folding.py`); the maps are
            the same to 1e-4 of their size. False runs `features` as built. Weights load and save the same either way.
    """

    norm_scale: Tensor
    norm_shift: Tensor

    def __init__(
        self,
        spec: NetSpec,
        *,
        checkpoint: str | Path | None = None,
        input_treatment: str = "default",
        own_norm: bool = False,
        seed: int = 0,
        fast: bool = True,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.name = spec.name
        self.treatment = resolve_treatment(input_treatment, own_norm)
        self.checkpoint_source = None if checkpoint is None else str(checkpoint)
        with torch.random.fork_rng(devices=[]):  # the caller's random numbers do not depend on which proposal it uses
            torch.manual_seed(seed)
            self.features = spec.build()
        layout = "pytorchvideo" if checkpoint is None else load_features(self.features, checkpoint, spec.name)
        scale, shift = renormalisation(*spec.mean_std[layout])
        self.register_buffer("norm_scale", scale, persistent=False)
        self.register_buffer("norm_shift", shift, persistent=False)
        self.requires_grad_(False)
        self.eval()
        self.fast = fast
        self._folded = FoldedNet(self.features)
        self.register_load_state_dict_post_hook(lambda module, _keys: module._folded.refresh(module.features))

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        check_clip(clip)
        return self.map_at(clip, self.input_size(clip_shape(clip)))

    def map_at(self, clip: Tensor, size: ClipShape) -> Tensor:
        """The map [B, t', h', w'] of `clip` [B, 3, T, H, W] resampled to `size`."""
        # [B, C, t', h', w'] -> [B, t', h', w']: the mean comes last, for a ReLU stands between it and the convolution.
        return self.features_of(self.prepare(clip, size)).mean(dim=1, dtype=torch.float32)

    def prepare(self, clip: Tensor, size: ClipShape) -> Tensor:
        """The clip as the network sees it: its precision, its normalisation, resampled to `size`."""
        clip = clip.to(self.norm_scale.dtype)
        if self.treatment.own_norm:
            clip = clip * self.norm_scale + self.norm_shift  # (x std_i + mean_i - mean) / std
        # Channels innermost, which convolutions hand on.
        return resample(clip, size).contiguous(memory_format=torch.channels_last_3d)

    def features_of(self, prepared: Tensor) -> Tensor:
        """The last feature maps [B, C, t', h', w'] of what `prepare` returned."""
        net = self._folded.current(self.features) if self.fast else self.features
        return net(prepared)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> NetProposal:
        super()._apply(fn, recurse)
        self._folded.refresh(self.features)
        return self

    def input_size(self, shape: ClipShape) -> ClipShape:
        """The (T, H, W) that the network sees of a clip of (T, H, W) pixels."""
        return self.spec.release_size(shape) if self.treatment.resample else shape

    def gmacs(self, clip_shape: ClipShape) -> float:
        return self.gmacs_at(self.input_size(clip_shape))

    def norm_gmacs(self, clip_shape: ClipShape) -> float:
        return self.norm_gmacs_at(self.input_size(clip_shape))

    def gmacs_at(self, size: ClipShape) -> float:
        """As `gmacs`, of a clip resampled to `size`."""
        return count_gmacs(self.spec.build, size)

    def norm_gmacs_at(self, size: ClipShape) -> float:
        """As `norm_gmacs`, of a clip resampled to `size`."""
        return count_norm_gmacs(self.spec.build, size)


def _cut_x3d(net: nn.Module) -> nn.Module:
    """An X3D up to the ReLU before its pool, under pytorchvideo's own names: [B, 3, T, H, W] -> [B, C, T, h', w']."""
    *trunk, head = net.get_submodule("blocks").children()
    names = ("pool.pre_conv", "pool.pre_norm", "pool.pre_act")
    last = OrderedDict((name.removeprefix("pool."), head.get_submodule(name)) for name in names)
    pool = nn.Sequential(last)
    return _use_silu(_sequence([*trunk, nn.Sequential(OrderedDict(pool=pool))]))


def _sequence(blocks: list[nn.Module]) -> nn.Module:
    return nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks)))


def _use_silu(net: nn.Module) -> nn.Module:
    """Put `nn.SiLU` in place of pytorchvideo's Swish, the same function written as a Python autograd function."""
    from pytorchvideo.layers.swish import Swish

    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, Swish):
                setattr(module, name, nn.SiLU())
    return net


def _build_x3d() -> nn.Module:
    """X3D-S and X3D-M are one network (width 2, depth 2.2, bottleneck 2.25) with different weights and input sizes."""
    ensure_torchvision()
    from pytorchvideo.models.x3d import create_x3d

    return _cut_x3d(create_x3d())


def _build_x3d_tiny() -> nn.Module:
    return _cut_x3d(build_x3d_tiny(num_classes=1))


def _build_slowonly(depth: int) -> nn.Module:
    """SlowOnly up to its last residual stage: [B, 3, T, H, W] -> [B, 2048, T, H / 32, W / 32]."""
    ensure_torchvision()
    from pytorchvideo.models.resnet import create_resnet

    return _sequence(list(create_resnet(model_depth=depth, stem_conv_kernel_size=(1, 7, 7), head=None).blocks))


def _always(size: ClipShape) -> Callable[[ClipShape], ClipShape]:
    return lambda shape: size


def _x3d_m_release(shape: ClipShape) -> ClipShape:
    """A 224-pixel clip is not touched, so X3D-M sees all its frames; any other becomes 8x224x224."""
    return shape if shape[1:] == (224, 224) else (8, 224, 224)


_X3D_NORM = {"pytorchvideo": KINETICS, "mmaction": KINETICS}
_SPECS = (
    NetSpec("x3d_s", _build_x3d, _always((8, 160, 160)), _X3D_NORM),
    NetSpec("x3d_m", _build_x3d, _x3d_m_release, _X3D_NORM),
    NetSpec(
        "x3d_tiny",
        _build_x3d_tiny,
        _always((X3D_TINY_FRAMES, X3D_TINY_SIDE, X3D_TINY_SIDE)),
        {"pytorchvideo": IMAGENET, "mmaction": IMAGENET},  # we trained it on the ViT's own normalisation
        stride=8,
    ),
    *(
        NetSpec(
            f"slowonly_r{depth}",
            partial(_build_slowonly, depth),
            _always((8, 224, 224)),
            {"pytorchvideo": KINETICS, "mmaction": IMAGENET},  # the two projects trained it on different statistics
        )
        for depth in (50, 101)
    ),
)
NET_SPECS: dict[str, NetSpec] = {spec.name: spec for spec in _SPECS}

x3d_s = partial(NetProposal, NET_SPECS["x3d_s"])
x3d_m = partial(NetProposal, NET_SPECS["x3d_m"])
x3d_tiny = partial(NetProposal, NET_SPECS["x3d_tiny"])
slowonly_r50 = partial(NetProposal, NET_SPECS["slowonly_r50"])
slowonly_r101 = partial(NetProposal, NET_SPECS["slowonly_r101"])
