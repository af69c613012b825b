"""VideoMAE models, their names and their checkpoint readers. Importing this package loads neither torch nor timm."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vidprune.models.catalog import MODELS

if TYPE_CHECKING:
    from vidprune.models.loading import create_model, load_model
    from vidprune.models.videomae import VideoMAE, VideoMAESpec

__all__ = ["MODELS", "VideoMAE", "VideoMAESpec", "create_model", "load_model"]

_LAZY = {
    "create_model": "vidprune.models.loading",
    "load_model": "vidprune.models.loading",
    "VideoMAE": "vidprune.models.videomae",
    "VideoMAESpec": "vidprune.models.videomae",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)
