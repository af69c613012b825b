"""Words in pictures: the header and the small captions, in Pillow's own font so that no font file is needed."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from vidprune.visualization.view import Caption

INK = (27, 31, 36)
GREY = (96, 103, 112)
PAPER = (255, 255, 255)
WARNING = (190, 72, 0)  # dark vermilion: 5 to 1 against white
MARGIN = 24

_TITLE, _LINE = 26, 17
_SECOND_LINE, _THIRD_LINE = 58, 84


@lru_cache(maxsize=8)
def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def write(
    draw: ImageDraw.ImageDraw,
    position: tuple[int, int],
    text: str,
    *,
    size: int = _LINE,
    colour: tuple[int, int, int] = INK,
    anchor: str = "la",
    max_width: int | None = None,
) -> int:
    """Write one line and return its width in pixels; text wider than `max_width` loses its middle."""
    text = one_line(text)
    if max_width is not None:
        text = shorten(text, size, max_width)
    draw.text(position, text, fill=colour, font=font(size), anchor=anchor)
    return text_width(text, size)


def one_line(text: str) -> str:
    """`text` as Pillow can draw it: file names may hold line breaks, and bytes that are no UTF-8."""
    return "".join(character if character.isprintable() else " " for character in text)


def text_width(text: str, size: int) -> int:
    return round(font(size).getlength(text))


def shorten(text: str, size: int, max_width: int) -> str:
    """`text`, or its beginning and end around "..." where it would be wider than `max_width` pixels."""
    if text_width(text, size) <= max_width:
        return text

    def without_middle(keep: int) -> str:
        return text[: (keep + 1) // 2] + "..." + text[len(text) - keep // 2 :]

    # Bisected, because measuring thousands of characters once for each candidate takes minutes.
    too_wide = bisect_left(range(len(text)), True, key=lambda keep: text_width(without_middle(keep), size) > max_width)
    return without_middle(max(too_wide - 1, 0))


def header_height(caption: Caption) -> int:
    """Pixels that the header takes at the top of a picture."""
    return (_THIRD_LINE if caption.random_weights else _SECOND_LINE) + 34


def draw_header(picture: Image.Image, caption: Caption, num_kept: int, num_tokens: int) -> None:
    """The file and the prediction, then how they came about, then the warning about random weights."""
    draw = ImageDraw.Draw(picture)
    right = picture.width - MARGIN
    room = right - MARGIN
    prediction = _prediction(caption)
    used = 0
    if prediction:
        prediction = shorten(prediction, _TITLE, room * 6 // 10)
        used = write(draw, (right, 20), prediction, size=_TITLE, anchor="ra") + MARGIN
    write(draw, (MARGIN, 20), caption.file, size=_TITLE, max_width=room - used)
    write(draw, (MARGIN, _SECOND_LINE), _details(caption, num_kept, num_tokens), colour=GREY, max_width=room)
    if caption.random_weights:
        warning = "Random weights: this prediction means nothing"
        write(draw, (MARGIN, _THIRD_LINE), warning, colour=WARNING, max_width=room)


def _prediction(caption: Caption) -> str:
    prob = "" if caption.prob is None else f"{100 * caption.prob:.1f} %"
    return "  ".join(part for part in (one_line(caption.prediction), prob) if part)


def _details(caption: Caption, num_kept: int, num_tokens: int) -> str:
    tokens = f"{num_kept} of {num_tokens} tokens kept"
    ratio = tokens if caption.keep_ratio is None else f"keep ratio {caption.keep_ratio:g}, {tokens}"
    return "  ·  ".join(part for part in (caption.model, caption.method, ratio, caption.view) if part)
