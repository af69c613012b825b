"""Small timm hosts with stages, ConvNeXt and Swin, of every kind that pruning must run on."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from tests.hosts import randomised
from vidprune.compat import ensure_torchvision

ensure_torchvision()
from timm.models.convnext import ConvNeXt  # noqa: E402
from timm.models.swin_transformer import SwinTransformer  # noqa: E402
from timm.models.swin_transformer_v2 import SwinTransformerV2  # noqa: E402

CONVNEXT = {"depths": (2, 1, 2, 1), "dims": (8, 16, 16, 24), "num_classes": 7}
SWIN = {"img_size": 64, "embed_dim": 8, "depths": (2, 2, 2), "num_heads": (2, 2, 2), "window_size": 4, "num_classes": 7}

STAGE_HOSTS: dict[str, Callable[[], nn.Module]] = {
    "ConvNeXt": lambda: ConvNeXt(**CONVNEXT, ls_init_value=0.3),
    "ConvNeXt, no LayerScale": lambda: ConvNeXt(**CONVNEXT, ls_init_value=None),
    "ConvNeXt, convolutional MLP": lambda: ConvNeXt(**CONVNEXT, conv_mlp=True),
    "ConvNeXt, norm before the pool": lambda: ConvNeXt(**CONVNEXT, head_norm_first=True),
    "ConvNeXt, overlapping stem": lambda: ConvNeXt(**CONVNEXT, stem_type="overlap_act"),
    "ConvNeXt V2": lambda: ConvNeXt(**CONVNEXT, ls_init_value=None, use_grn=True),
    "ConvNeXt V2, convolutional MLP": lambda: ConvNeXt(**CONVNEXT, ls_init_value=None, use_grn=True, conv_mlp=True),
    "Swin": lambda: SwinTransformer(**SWIN),
    "Swin, padded windows": lambda: SwinTransformer(**{**SWIN, "window_size": 3}),
    "Swin V2": lambda: SwinTransformerV2(**SWIN),
}


def make_stage_host(name: str) -> nn.Module:
    """The host called `name`: images of 64 pixels; a ConvNeXt takes any size and says 224."""
    return randomised(STAGE_HOSTS[name]())
