"""How frames are stored: RGB, or as a file's own luma and chroma at half the size, turned into RGB on the device.

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


def plane_sizes(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes of the stored planes Y, Cb and Cr of frames of height x width; all of them cover the whole picture."""
    half = ((height + 1) // 2, (width + 1) // 2)
    return [(height, width), half, half]


def split_planes(stored: Any, height: int, width: int) -> list[Any]:
    """Arrays or tensors [..., N] of frames stored by planes, one after another -> Y, Cb and Cr: views [..., h, w]."""
    planes, start = [], 0
    for h, w in plane_sizes(height, width):
        planes.append(stored[..., start : start + h * w].reshape(*stored.shape[:-1], h, w))
        start += h * w
    return planes


def to_rgb(stored: Tensor, colour: str, size: tuple[int, int]) -> Tensor:
    """Frames as `VideoFrames` has them, `size` (H, W) -> their RGB levels, float32 [3, R, H, W], 0 to 255, not rounded.

    Chroma is brought to full size by bilinear interpolation of float32, between the centres of its samples.
    """
    import torch

    if colour == "rgb":
        return stored.permute(3, 0, 1, 2).to(torch.float32, memory_format=torch.contiguous_format, copy=True)
    rgb = torch.empty((3, len(stored), *size), device=stored.device)
    at_once = len(stored) if stored.is_cuda else 1  # a CPU keeps one frame in its cache: half the time
    for start in range(0, len(stored), at_once):
        _write_rgb(rgb[:, start : start + at_once], stored[start : start + at_once], colour)
    return rgb


def _write_rgb(rgb: Tensor, stored: Tensor, colour: str) -> None:
    """`to_rgb` of planes, into float32 [3, R, H, W]."""
    import torch

    kr, kb, full = _matrix(colour)
    luma, *chroma = split_planes(stored, *rgb.shape[2:])
    luma, small = luma.to(torch.float32), torch.stack(chroma, dim=1).to(torch.float32).sub_(128)
    if not full:
        luma, small = luma.sub_(16).mul_(255 / 219), small.mul_(255 / 224)
    blue, red = torch.nn.functional.interpolate(small, size=rgb.shape[2:], mode="bilinear").unbind(1)
    to_blue, to_red = 2 * (1 - kb), 2 * (1 - kr)  # of B - Y and R - Y
    torch.add(luma, red, alpha=to_red, out=rgb[0])
    torch.add(luma, blue, alpha=to_blue, out=rgb[2])
    rest = kr + kb - 1  # G - Y follows, as Y is the three's weighted mean
    torch.add(luma, red, alpha=to_red * kr / rest, out=rgb[1]).add_(blue, alpha=to_blue * kb / rest)
    for channel, cut_off in zip(rgb, _CUT_OFF[full], strict=True):
        channel.sub_(cut_off).clamp_(0, 255)


def from_rgb(image: np.ndarray, colour: str) -> list[np.ndarray]:
    """Planes Y, Cb and Cr of RGB uint8 [h, w, 3], uint8 [h, w] each: the inverse of `to_rgb`, rounded, none halved."""
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

    levels = to_rgb(torch.from_numpy(frames), video.colour, video.size)  # [3, R, H, W]
    return levels.round().to(torch.uint8).movedim(0, -1).numpy()


def _matrix(colour: str) -> tuple[float, float, bool]:
    """Kr, Kb, and whether the range is full."""
    name = colour.removesuffix(FULL)
    if name not in _WEIGHTS:
        known = ", ".join(("rgb", *_WEIGHTS))
        raise ConfigError(f"unknown colour {colour!r} of frames: allowed are {known}, a matrix also with {FULL!r}")
    return (*_WEIGHTS[name], colour != name)
