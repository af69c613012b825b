"""Files as inputs of a host: a video as its views, an image as timm prepares it for that model."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, VideoDecodeError
from vidprune.inference import plan_for
from vidprune.models.videomae import VideoMAE
from vidprune.video import cut_views, read_video

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})


def read_inputs(
    path: str | Path, host: VisionTransformer, *, num_segments: int = 1, num_crops: int = 1, backend: str = "pyav"
) -> Tensor:
    """Inputs from one file, on the host's device: views [V, 3, T, H, W] of a video, or an image as [1, 3, H, W].

    Raises:
        VideoDecodeError: for a file that yields nothing.
    """
    parameter = next(host.parameters())
    if isinstance(host, VideoMAE):
        plan = plan_for(host, num_segments=num_segments, num_crops=num_crops)
        video = read_video(path, plan, backend=backend)
        return cut_views(video, plan, device=parameter.device, dtype=parameter.dtype)
    return _read_image(path, host).to(parameter.device, parameter.dtype)


def read_scores(path: str | Path) -> np.ndarray:
    """An array of numbers from an .npy file; nothing is unpickled. Raises `ConfigError` for any other file."""
    try:
        found = np.load(path, allow_pickle=False)
    except OSError as error:
        raise ConfigError(
            f"cannot read scores {str(path)!r}: {error.strerror or error}; allowed are rollout, lrp or an .npy file"
        ) from None
    except (ValueError, EOFError, zipfile.BadZipFile):
        found = None
    if not isinstance(found, np.ndarray):
        raise ConfigError(f"{str(path)!r} is not an .npy file of one array of numbers [L, N]")
    return found


def _read_image(path: str | Path, host: VisionTransformer) -> Tensor:
    from PIL import Image, UnidentifiedImageError
    from timm.data import create_transform, resolve_data_config

    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise VideoDecodeError(f"cannot read image {str(path)!r}: {error}") from None
    height, width = host.patch_embed.img_size
    # The model's own mean, deviation and crop; the size is asked of the layer, which its config may not follow.
    config = resolve_data_config({"input_size": (3, height, width)}, model=host)
    pixels: Tensor = create_transform(**config)(rgb)
    return torch.as_tensor(pixels).unsqueeze(0)
