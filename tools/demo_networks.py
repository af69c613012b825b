"""The demo's models as they are trained: one logit per digit and one per motion, and the host's token labels."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from demo_stream import SPEC, Stage
from digit_scenes import DIGITS, MOTIONS
from torch import Tensor, nn

from vidprune.models.videomae import VideoMAE
from vidprune.proposals.x3d_tiny import X3D_TINY_FRAMES, X3D_TINY_SIDE, build_x3d_tiny

NUM_FACTORS = len(DIGITS) + len(MOTIONS)


class X3DOnClip(nn.Module):
    """X3D-tiny behind its resample, so that both models take the same clip [B, 3, 8, 112, 112]."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.net = build_x3d_tiny(num_classes).to(memory_format=torch.channels_last_3d)

    def features(self, clip: Tensor) -> Tensor:
        side = clip.shape[-1] * X3D_TINY_SIDE // SPEC.image_size
        x = F.interpolate(clip, (X3D_TINY_FRAMES, side, side), mode="trilinear", align_corners=True)
        x = x.contiguous(memory_format=torch.channels_last_3d)
        for block in self.net.blocks[:5]:
            x = block(x)
        pool = self.net.blocks[5].pool
        return pool.pre_act(pool.pre_norm(pool.pre_conv(x)))  # [B, C, t, h, w]

    def forward(self, clip: Tensor) -> Tensor:
        head = self.net.blocks[5]
        x = self.features(clip).mean((2, 3, 4), keepdim=True)
        x = head.pool.post_act(head.pool.post_conv(x)).flatten(1)
        return head.proj(x)


def build_model(name: str) -> nn.Module:
    """The model with one logit per digit and one per motion; see `fold_head` for how they become class logits."""
    return VideoMAE(SPEC, NUM_FACTORS) if name == "videomae" else X3DOnClip(NUM_FACTORS)


def factor_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy of the joint class whose logit is digit logit + motion logit: the two cross entropies add up."""
    digit, motion = labels // len(MOTIONS), labels % len(MOTIONS)
    return F.cross_entropy(logits[:, : len(DIGITS)], digit) + F.cross_entropy(logits[:, len(DIGITS) :], motion)


def vit_tokens(model: VideoMAE, clip: Tensor, stage: Stage, rng: np.random.Generator) -> Tensor:
    """Last tokens [B, n, D] of a batch [B, 3, T, side, side]; windows get the codes of a random place of the grid."""
    grid = SPEC.grid
    row, column = rng.integers(0, grid.h - stage.patches + 1, 2)
    time = rng.integers(0, grid.t - stage.tubelets + 1)
    index = torch.arange(grid.num_tokens, device=clip.device).view(grid.shape)
    index = index[time : time + stage.tubelets, row : row + stage.patches, column : column + stage.patches].flatten()
    x = model.patch_embed.proj(clip).flatten(2).transpose(1, 2) + model.pos_embed[:, index]  # [B, t * p * p, D]
    return model.norm(model.blocks(x))


class TokenLabels(nn.Module):
    """Token labelling (Jiang et al., NeurIPS 2021): each token of the host says which actor it shows, if any.

    A training aid of the host alone: these two linear layers are thrown away afterwards, and the proposal has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(SPEC.width)
        self.digit = nn.Linear(SPEC.width, len(DIGITS) + 1)  # the last class is "no actor here"
        self.motion = nn.Linear(SPEC.width, len(MOTIONS) + 1)

    def loss(self, tokens: Tensor, labels: Tensor, opacity: Tensor) -> Tensor:
        """Cross entropy over tokens [B, n, D], where `opacity` [B, n] is the actor's; empty tokens weigh a tenth."""
        shown = opacity > 255 * 0.03
        weight = torch.where(shown, 1.0, 0.1)
        tokens = self.norm(tokens)
        total = tokens.new_zeros(())
        for layer, value in ((self.digit, labels // len(MOTIONS)), (self.motion, labels % len(MOTIONS))):
            target = torch.where(shown, value[:, None], layer.out_features - 1)
            losses = F.cross_entropy(layer(tokens).transpose(1, 2), target, reduction="none")
            total = total + (losses * weight).sum() / weight.sum()
        return total


def stage_loss(logits: Tensor, labels: Tensor, stage: Stage) -> Tensor:
    """Cross entropy over both factors; over digits alone where a single tubelet cannot show the motion."""
    if stage.tubelets > 1:
        return factor_loss(logits, labels)
    return F.cross_entropy(logits[:, : len(DIGITS)], labels // len(MOTIONS))
