"""The names of the video models, importable without torch or timm."""

from __future__ import annotations

from vidprune.registry import Registry

MODELS = Registry("model", "vidprune.models")
"""Model names. Each entry is a factory `(num_classes=..., **overrides) -> nn.Module` with random weights."""

TIMM_PREFIX = "timm/"
"""A name `timm/NAME` is the image model NAME of timm."""

FRAMES_PREFIX = "frames"
"""A name `frames/NAME` is an image model that runs on every frame of a clip; see `frame_names`."""

_DESCRIPTIONS = {
    "videomae_tiny": "VideoMAE of width 128 and 4 blocks, trained by us for the demo",
    "videomae_small": "VideoMAE ViT-S/16, 16 frames of 224 px, 22 M parameters",
    "videomae_base": "VideoMAE ViT-B/16, 16 frames of 224 px, 87 M parameters",
    "videomae_large": "VideoMAE ViT-L/16, 16 frames of 224 px, 304 M parameters",
    "videomae_huge": "VideoMAE ViT-H/16, 16 frames of 224 px, 632 M parameters",
    "videomae_v2_small": "VideoMAE V2 ViT-S/16 (distilled from ViT-g), as videomae_small",
    "videomae_v2_base": "VideoMAE V2 ViT-B/16 (distilled from ViT-g), as videomae_base",
    "videomae_v2_giant": "VideoMAE V2 ViT-g/14, 16 frames of 224 px, 2048 tokens, 1012 M parameters",
}

for _name, _description in _DESCRIPTIONS.items():
    MODELS.register(_name, f"vidprune.models.builders:{_name}", _description)
