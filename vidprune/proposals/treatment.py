"""How a network sees the ViT's clip: its size (`release` or `native`) and its normalisation (the ViT's or its own)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from vidprune.errors import unknown_name
from vidprune.types import IMAGENET_MEAN, IMAGENET_STD

INPUT_TREATMENTS = ("release", "native", "own_norm")


@dataclass(frozen=True)
class InputTreatment:
    """The two choices behind a named treatment.

    Attributes:
        resample: True: resample as PaPr's released code does; False: the clip as it is.
        own_norm: re-normalise from ImageNet's mean and std to the network's own.
    """

    resample: bool
    own_norm: bool

    @property
    def name(self) -> str:
        size = "release" if self.resample else "native"
        return f"{size} + own_norm" if self.own_norm else size


def resolve_treatment(name: str, own_norm: bool = False) -> InputTreatment:
    """The treatment called `name`.

    `release` is the size of PaPr's code, `native` the clip as it is; both keep the ViT's ImageNet normalisation, as
    that code does. `own_norm` is native size re-normalised to what the network was trained with; the flag adds the same
    to `release`. `default` is `release`.
    """
    if name not in (*INPUT_TREATMENTS, "default"):
        raise unknown_name("input treatment", name, (*INPUT_TREATMENTS, "default"))
    return InputTreatment(resample=name in ("release", "default"), own_norm=own_norm or name == "own_norm")


def renormalisation(mean: Sequence[float], std: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Scale and shift, [3, 1, 1, 1] each, that turn ImageNet's normalisation into that of `mean` and `std`."""
    old_mean, old_std = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)
    scale = old_std / torch.tensor(std)
    shift = (old_mean - torch.tensor(mean)) / torch.tensor(std)
    return scale.view(3, 1, 1, 1), shift.view(3, 1, 1, 1)


def resample(clip: Tensor, size: tuple[int, int, int]) -> Tensor:
    """Trilinear to (T, H, W) with corners aligned and no anti-aliasing: [B, C, T, H, W] -> [B, C, *size].

    With corners aligned, 16 -> 8 frames reads positions 15 j / 7: blends of two frames, not every second one. That is
    what PaPr's code feeds its networks (x3d and SlowOnly projections of its video part).
    """
    if tuple(clip.shape[2:]) == size:
        return clip
    return F.interpolate(clip, size=size, mode="trilinear", align_corners=True)
