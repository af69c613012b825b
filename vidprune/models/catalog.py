"""The names of the video models, importable without torch or timm."""

from __future__ import annotations

from vidprune.registry import Registry

MODELS = Registry("model", "vidprune.models")
"""Model names. Each entry is a factory `(num_classes=..., **overrides) -> nn.Module` with random weights."""

_BUILDERS = "vidprune.models.builders"
MODELS.register(
    "videomae_tiny", f"{_BUILDERS}:videomae_tiny", "VideoMAE of width 128, 4 blocks, 8 frames of 112 px (ours)"
)
MODELS.register(
    "videomae_small", f"{_BUILDERS}:videomae_small", "VideoMAE ViT-S/16, 16 frames of 224 px, 22 M parameters"
)
MODELS.register(
    "videomae_base", f"{_BUILDERS}:videomae_base", "VideoMAE ViT-B/16, 16 frames of 224 px, 87 M parameters"
)
MODELS.register(
    "videomae_large", f"{_BUILDERS}:videomae_large", "VideoMAE ViT-L/16, 16 frames of 224 px, 304 M parameters"
)
MODELS.register(
    "videomae_huge", f"{_BUILDERS}:videomae_huge", "VideoMAE ViT-H/16, 16 frames of 224 px, 632 M parameters"
)
MODELS.register("videomae_v2_small", f"{_BUILDERS}:videomae_v2_small", "VideoMAE V2 ViT-S/16 (distilled from ViT-g)")
MODELS.register("videomae_v2_base", f"{_BUILDERS}:videomae_v2_base", "VideoMAE V2 ViT-B/16 (distilled from ViT-g)")
MODELS.register(
    "videomae_v2_giant", f"{_BUILDERS}:videomae_v2_giant", "VideoMAE V2 ViT-g/14, 2048 tokens, 1012 M parameters"
)

TIMM_PREFIX = "timm/"
"""A name `timm/NAME` is the image model NAME of timm."""
