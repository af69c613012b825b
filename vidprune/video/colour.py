"""What the three channels of stored frames mean: RGB, or a file's own luma and chroma, turned into RGB on the device.

A file tells its matrix and range, and FFmpeg's conversion to RGB follows them; so does this, with the defaults that
FFmpeg takes where a file is silent: BT.601, limited range. Kr and Kb are those of ITU-T H.273, table 4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from vidprune.errors import ConfigError
from vidprune.types import VideoFrames

if TYPE_CHECKING:
    from torch import Tensor

COLOURS = ("rgb", "yuv")
"""What can be asked for: RGB made while decoding, or planes whose colours are made later, where they can be had."""

FULL = "-full"  # ends the name of a matrix on full range, e.g. "bt601-full"
_WEIGHTS = {  # Kr, Kb
    "bt601": (0.299, 0.114),
    "bt709": (0.2126, 0.0722),
    "fcc": (0.30, 0.11),
    "smpte240m": (0.212, 0.087),
    "bt2020": (0.2627, 0.0593),
}
_BY_CODE = {0: "bt601", 1: "bt709", 2: "bt601", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
_JPEG_RANGE = 2  # AVCOL_RANGE_JPEG
# FFmpeg's fast conversion cuts off where exact arithmetic rounds: its R, G and B are lower by these, on the mean over
# all colours. They are taken off here too, so that a model sees the levels it would see by the usual way.
_CUT_OFF = {False: (1.0, 1.4, 1.0), True: (0.5, 1.0, 0.5)}


def check_colour(colour: str, backend: str = "pyav") -> None:
    """Raises `ConfigError` for a colour that is unknown, or that the backend does not hand out."""
    if colour not in COLOURS:
        raise ConfigError(f"colour must be one of {', '.join(COLOURS)}, got {colour!r}")
    if colour == "yuv" and backend != "pyav":
        raise ConfigError(
            f"colour yuv comes from the backend pyav alone, got backend {backend!r}; choose that one, or colour rgb"
        )


def colour_of(frame: Any) -> str:
    """How a decoded frame of PyAV can be stored: by its planes, under their matrix' name; else "rgb".

    By planes go progressive 8-bit 4:2:0 frames of even size, as good as all there are. On an odd size the last chroma
    sample would be half outside of the picture; the rows of interlaced chroma belong to two fields.
    """
    matrix = _BY_CODE.get(int(frame.colorspace))
    odd = frame.width % 2 or frame.height % 2
    if frame.format.name not in ("yuv420p", "yuvj420p") or odd or frame.interlaced_frame or matrix is None:
        return "rgb"
    full = frame.format.name == "yuvj420p" or int(frame.color_range) == _JPEG_RANGE
    return matrix + FULL if full else matrix


def planes_of(frame: Any) -> list[np.ndarray]:
    """Y, Cb and Cr of a decoded frame, uint8 [h, w] each, chroma at half the size; views of its memory."""
    return [
        np.frombuffer(plane, dtype=np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    ]


def to_rgb(pixels: Tensor, colour: str) -> Tensor:
    """Float levels [..., 3] of frames stored as `colour` -> RGB levels [..., 3], 0 to 255; RGB comes back as it is."""
    if colour == "rgb":
        return pixels
    import torch

    kr, kb, full = _matrix(colour)
    luma, blue, red = pixels.unbind(-1)
    swing = 1.0 if full else 255 / 224
    blue, red = (blue - 128).mul_(2 * (1 - kb) * swing), (red - 128).mul_(2 * (1 - kr) * swing)  # B - Y, R - Y
    green = (blue * (kb / (kr + kb - 1))).add_(red, alpha=kr / (kr + kb - 1))  # G - Y: Y is the three's weighted mean
    luma = luma if full else (luma - 16).mul_(255 / 219)
    rgb = torch.stack((red, green, blue)).add_(luma)  # [3, ...]: planar in memory, as models take it
    for channel, cut_off in zip(rgb, _CUT_OFF[full], strict=True):
        channel.sub_(cut_off)
    return rgb.clamp_(0, 255).movedim(0, -1)


def from_rgb(image: np.ndarray, colour: str) -> list[np.ndarray]:
    """Planes Y, Cb and Cr of RGB uint8 [h, w, 3], uint8 [h, w] each: the inverse of `to_rgb`, rounded."""
    kr, kb, full = _matrix(colour)
    red, green, blue = np.moveaxis(image.astype(np.float32) + np.array(_CUT_OFF[full], dtype=np.float32), -1, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = [(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))]
    scaled = (
        [luma, *(c + 128 for c in chroma)]
        if full
        else [luma * (219 / 255) + 16, *(c * (224 / 255) + 128 for c in chroma)]
    )
    return [plane.round().clip(0, 255).astype(np.uint8) for plane in scaled]


def rgb_frames(video: VideoFrames, rows: np.ndarray) -> np.ndarray:
    """Some frames of a video for the eye: RGB, uint8 [R, H, W, 3]."""
    frames = video.frames[rows]
    if video.colour == "rgb":
        return frames
    import torch

    return to_rgb(torch.from_numpy(frames).to(torch.float32), video.colour).round().to(torch.uint8).numpy()


def _matrix(colour: str) -> tuple[float, float, bool]:
    """Kr, Kb, and whether the range is full."""
    name = colour.removesuffix(FULL)
    if name not in _WEIGHTS:
        known = ", ".join(("rgb", *_WEIGHTS))
        raise ConfigError(f"unknown colour {colour!r} of frames: allowed are {known}, a matrix also with {FULL!r}")
    return (*_WEIGHTS[name], colour != name)
