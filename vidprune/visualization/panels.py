"""The painted panels, as arrays: heat over a frame, and kept tubelets with the dropped ones faded to white."""

from __future__ import annotations

import numpy as np
from PIL import Image

# Every 1/16th of the viridis colour map (S. van der Walt and N. Smith, CC0): its lightness rises evenly, so it reads
# the same in grey and to colour-blind eyes.
_VIRIDIS_ANCHORS = """
    440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725
"""
_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
_HEAT_OPACITY = 0.62
_HEAT_BASE = (96.0, 0.6)  # offset and slope of the grey under the heat: on pure black, high values would look low
_FADE = 0.78  # how far dropped tubelets go towards white
_OUTLINE = (213, 94, 0)  # vermilion of the Okabe-Ito palette: stands out on both sides of the edge


def heat_colours() -> np.ndarray:
    """The colour map, uint8 [256, 3], from low to high."""
    anchors = np.array([list(bytes.fromhex(c)) for c in _VIRIDIS_ANCHORS.split()], dtype=float)  # [16, 3]
    position = np.linspace(0, len(anchors) - 1, 256)
    channels = [np.interp(position, np.arange(len(anchors)), anchors[:, c]) for c in range(3)]
    return np.stack(channels, axis=1).round().astype(np.uint8)


def heat_levels(proposal_map: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """The map [t', h', w'] scaled to 0..1 over the whole clip, resized to `size`: float [T, H, W].

    Linear with corners aligned, as PaPr brings its maps to the token grid. A constant map gives zeros.
    """
    low, high = float(proposal_map.min()), float(proposal_map.max())
    levels = np.zeros(proposal_map.shape)
    if high > low:
        levels = (proposal_map.astype(float) - low) / (high - low)
    for axis, length in enumerate(size):
        levels = np.moveaxis(_resize_first_axis(np.moveaxis(levels, axis, 0), length), 0, axis)
    return levels


def heat_panel(frame: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Colour `levels` [H, W] laid over the grey of `frame` uint8 [H, W, 3]; grey, so that colour is the map alone."""
    colour = heat_colours()[(levels * 255).round().astype(int)]  # [H, W, 3]
    offset, slope = _HEAT_BASE
    return _blend(offset + slope * _grey(frame), colour, _HEAT_OPACITY)


def heat_scale(height: int) -> np.ndarray:
    """The colour bar, uint8 [height, 256, 3], blended as the panels are, so that its colours are found in them."""
    mid_grey = np.full((height, 256, 3), 128, dtype=np.uint8)
    return heat_panel(mid_grey, np.broadcast_to(np.linspace(0, 1, 256), (height, 256)))


def kept_panel(frame: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """`frame` uint8 [H, W, 3] with the tubelets outside `kept` bool [h, w] faded, and a line along the edge."""
    height, width = frame.shape[:2]
    rows = np.arange(height) * kept.shape[0] // height  # pixel row -> grid row
    columns = np.arange(width) * kept.shape[1] // width
    mask = kept[rows][:, columns]  # [H, W]
    faded = _blend(_grey(frame), np.full(3, 255), _FADE)
    panel = np.where(mask[..., None], frame, faded)
    panel[_edge(mask)] = _OUTLINE
    return panel


def resize_frame(frame: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame uint8 [H, W, 3] at `size` (height, width)."""
    return np.asarray(Image.fromarray(frame).resize((size[1], size[0]), Image.Resampling.LANCZOS))


def _resize_first_axis(values: np.ndarray, length: int) -> np.ndarray:
    position = np.linspace(0, len(values) - 1, length)
    below = position.astype(int)
    above = np.minimum(below + 1, len(values) - 1)
    weight = (position - below).reshape(-1, *[1] * (values.ndim - 1))
    return values[below] * (1 - weight) + values[above] * weight


def _grey(frame: np.ndarray) -> np.ndarray:
    return np.repeat((frame @ _LUMA)[..., None], 3, axis=2)


def _blend(base: np.ndarray, paint: np.ndarray, opacity: float) -> np.ndarray:
    return (base * (1 - opacity) + paint * opacity).round().astype(np.uint8)


def _edge(mask: np.ndarray) -> np.ndarray:
    """The kept pixels that touch a dropped one, bool [H, W]; about two pixels wide at 240."""
    edge = np.zeros_like(mask)
    for step in range(1, max(1, round(mask.shape[0] / 150)) + 1):
        edge[step:] |= mask[step:] & ~mask[:-step]
        edge[:-step] |= mask[:-step] & ~mask[step:]
        edge[:, step:] |= mask[:, step:] & ~mask[:, :-step]
        edge[:, :-step] |= mask[:, :-step] & ~mask[:, step:]
    return edge
