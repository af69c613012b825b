"""The contact sheet: one column per tubelet, rows for the frames, the proposal map and the kept tubelets."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageDraw

from vidprune.errors import ConfigError
from vidprune.visualization.panels import heat_levels, heat_panel, heat_scale, kept_panel, resize_frame
from vidprune.visualization.text import GREY, INK, MARGIN, PAPER, draw_header, header_height, write
from vidprune.visualization.view import Caption, ViewPicture

_GAP = 6
_CELL = 232  # widest cell: a 224-pixel crop about as large as it is
_FEW, _CELL_OF_FEW = 4, 320
_MAX_WIDTH = 1960
_MIN_WIDTH = 720  # room for the header
_MAX_COLUMNS = 16
_ROW_TITLE, _FOOT = 40, 50
_KEPT_BAR = (0, 114, 178)  # blue of the Okabe-Ito palette


def contact_sheet(view: ViewPicture, caption: Caption, *, every_frame: bool = False) -> Image.Image:
    """Draw a view as a table of pictures.

    Args:
        view: what to show.
        caption: the words of the header.
        every_frame: a column for each frame rather than for the first frame of each tubelet. Beyond 16 columns, an even
            choice of 16 is shown.

    Returns:
        An RGB picture, at most 1,960 pixels wide.
    """
    if view.frames.shape[1] > 4 * view.frames.shape[2]:
        raise ConfigError(f"frames {view.frames.shape[1:3]} are too tall to draw; give a view as the model sees it")
    shown = _columns(view, every_frame)
    cell = _cell_size(view, len(shown))
    rows = list(_rows(view, shown, cell))
    width = max(_MIN_WIDTH, 2 * MARGIN + len(shown) * (cell[1] + _GAP) - _GAP)
    top = header_height(caption)
    height = top + len(rows) * (_ROW_TITLE + cell[0]) + _FOOT + MARGIN
    picture = Image.new("RGB", (width, height), PAPER)
    draw_header(picture, caption, view.num_kept, view.grid.num_tokens)
    draw = ImageDraw.Draw(picture)
    for title, panels in rows:
        title_width = write(draw, (MARGIN, top + 12), title, colour=INK)
        if title.startswith("Proposal"):
            _draw_scale(picture, (MARGIN + title_width + 24, top + 12))
        for column, panel in enumerate(panels):
            picture.paste(Image.fromarray(panel), (MARGIN + column * (cell[1] + _GAP), top + _ROW_TITLE))
        top += _ROW_TITLE + cell[0]
    _draw_feet(draw, view, shown, cell, top)
    return picture


def _columns(view: ViewPicture, every_frame: bool) -> np.ndarray:
    """The frames to show, int [columns]."""
    candidates = np.arange(0, len(view.frames), 1 if every_frame else view.frames_per_tubelet)
    if len(candidates) <= _MAX_COLUMNS:
        return candidates
    return candidates[np.linspace(0, len(candidates) - 1, _MAX_COLUMNS).round().astype(int)]


def _cell_size(view: ViewPicture, columns: int) -> tuple[int, int]:
    """(height, width) of one picture in pixels."""
    widest = _CELL_OF_FEW if columns <= _FEW else _CELL
    width = min(widest, (_MAX_WIDTH - 2 * MARGIN + _GAP) // columns - _GAP)
    return max(1, round(width * view.frames.shape[1] / view.frames.shape[2])), width


def _rows(view: ViewPicture, shown: np.ndarray, cell: tuple[int, int]) -> Iterator[tuple[str, list[np.ndarray]]]:
    frames = [resize_frame(view.frames[i], cell) for i in shown]
    tubelets = shown // view.frames_per_tubelet
    total = len(view.frames) if len(shown) > view.grid.t else view.grid.t
    part = f", {len(shown)} of {total} shown" if len(shown) == _MAX_COLUMNS < total else ""
    yield f"Frames as the model sees them{part}", frames
    if view.proposal_map is not None:
        levels = heat_levels(view.proposal_map, (view.grid.t, *cell))
        yield "Proposal map", [heat_panel(frame, levels[t]) for frame, t in zip(frames, tubelets, strict=True)]
    yield "Kept tubelets", [kept_panel(frame, view.kept[t]) for frame, t in zip(frames, tubelets, strict=True)]


def _draw_scale(picture: Image.Image, position: tuple[int, int]) -> None:
    """The colour bar, from this clip's lowest value to its highest."""
    draw = ImageDraw.Draw(picture)
    left, top = position
    left += write(draw, (left, top), "lowest in this clip", colour=GREY, size=15) + 8
    picture.paste(Image.fromarray(heat_scale(12)).resize((160, 12)), (left, top + 4))
    write(draw, (left + 168, top), "highest", colour=GREY, size=15)


def _draw_feet(
    draw: ImageDraw.ImageDraw, view: ViewPicture, shown: np.ndarray, cell: tuple[int, int], top: int
) -> None:
    """Under each column: which frame it is, and how much of its tubelets was kept."""
    for column, index in enumerate(shown):
        left = MARGIN + column * (cell[1] + _GAP)
        share = float(view.kept[index // view.frames_per_tubelet].mean())
        draw.rectangle((left, top + 5, left + cell[1] - 1, top + 8), fill=(222, 226, 230))
        if share:
            draw.rectangle((left, top + 5, left + max(1, round(share * cell[1])) - 1, top + 8), fill=_KEPT_BAR)
        number = view.frame_numbers[index] if len(view.frame_numbers) else index
        write(draw, (left, top + 14), f"{100 * share:.0f} % kept", size=15, colour=INK)
        write(draw, (left, top + 34), f"frame {number}", size=15, colour=GREY)
