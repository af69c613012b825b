"""X3D-tiny: the demo's proposal network, small enough to be trained on two CPU cores and shipped inside the package.

Source: Feichtenhofer, "X3D", CVPR 2020, through pytorchvideo's `create_x3d`; only the sizes are ours.
"""

from __future__ import annotations

from torch import nn

from vidprune.compat import ensure_torchvision

X3D_TINY_FRAMES = 8
X3D_TINY_SIDE = 56
"""Clips are resampled to this many frames and this side, as PaPr does for X3D-S (8x160x160)."""


def build_x3d_tiny(num_classes: int) -> nn.Module:
    """An X3D of 1 block per stage. Input [B, 3, 8, 56, 56] (ImageNet mean/std), output logits [B, num_classes].

    The features for a proposal map are the output of `blocks[5].pool.pre_act`, the last convolution before the pool
    (after its batch norm and ReLU), float [B, 144, 4, 7, 7].
    """
    ensure_torchvision()
    from pytorchvideo.models.x3d import create_x3d

    return create_x3d(
        input_clip_length=X3D_TINY_FRAMES,
        input_crop_size=X3D_TINY_SIDE,
        model_num_class=num_classes,
        dropout_rate=0.0,
        stem_dim_in=8,
        width_factor=1.0,
        depth_factor=0.2,
        stage_spatial_stride=(2, 2, 1, 1),
        stage_temporal_stride=(1, 1, 2, 1),
        head_dim_out=128,
        head_activation=None,
    )
