"""The overlay video: frame, kept tubelets and proposal map side by side, as H.264 in MP4."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vidprune.errors import ConfigError, VidpruneError
from vidprune.visualization.output import written_whole
from vidprune.visualization.panels import heat_levels, heat_panel, kept_panel, resize_frame
from vidprune.visualization.text import GREY, INK, MARGIN, PAPER, draw_header, header_height, write
from vidprune.visualization.view import Caption, ViewPicture

_GAP = 12
_TITLES = ("Frame", "Kept tubelets", "Proposal map")
_TITLE_HEIGHT = 30


def overlay_video(
    path: str | Path, views: Sequence[ViewPicture], caption: Caption, *, fps: float, panel_height: int = 336
) -> Path:
    """Write the views one after another as a video and return its path.

    Args:
        path: an .mp4 file; it appears only when whole.
        views: one or more views of equal frame size, e.g. the centre crop of every temporal segment.
        caption: the words of the header.
        fps: pictures per second; source fps / frame_stride plays at the speed of life.
        panel_height: of each panel, in pixels (64 to 1080).

    Raises:
        ConfigError: nothing to draw, or a value out of range.
        VidpruneError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() != ".mp4":
        raise ConfigError(f"an overlay video is written as .mp4, got {path.name!r}")
    if not views:
        raise ConfigError("an overlay video needs at least one view")
    if len({view.frames.shape[1:] for view in views}) > 1:
        raise ConfigError(f"the views differ in size: {sorted({view.frames.shape[1:3] for view in views})}")
    if not (math.isfinite(fps) and 0.1 <= fps <= 240):
        raise ConfigError(f"fps must lie in [0.1, 240], got {fps}")
    if not 64 <= panel_height <= 1080:
        raise ConfigError(f"panel_height must lie in [64, 1080], got {panel_height}")
    with written_whole(path) as temporary:
        _encode(temporary, _pictures(views, caption, panel_height), Fraction(fps).limit_denominator(1001))
    return path


def _pictures(views: Sequence[ViewPicture], caption: Caption, panel_height: int) -> Iterator[np.ndarray]:
    """One uint8 [H, W, 3] picture per frame, H and W even as 4:2:0 needs."""
    height, width = views[0].frames.shape[1:3]
    panel = (panel_height, max(1, round(panel_height * width / height)))
    columns = 3 if any(view.proposal_map is not None for view in views) else 2
    top = header_height(caption)
    size = (2 * MARGIN + columns * (panel[1] + _GAP) - _GAP, top + _TITLE_HEIGHT + panel[0] + 2 * MARGIN)
    for view in views:
        base = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), PAPER)
        draw_header(base, caption, view.num_kept, view.grid.num_tokens)
        draw = ImageDraw.Draw(base)
        for column, title in enumerate(_TITLES[:columns]):
            write(draw, (MARGIN + column * (panel[1] + _GAP), top), title, colour=INK, max_width=panel[1])
        for index, panels in enumerate(_panels(view, panel)):
            picture = base.copy()
            for column, array in enumerate(panels):
                left = MARGIN + column * (panel[1] + _GAP)
                picture.paste(Image.fromarray(array), (left, top + _TITLE_HEIGHT))
            number = view.frame_numbers[index] if len(view.frame_numbers) else index
            foot = top + _TITLE_HEIGHT + panel[0] + 8
            write(ImageDraw.Draw(picture), (MARGIN, foot), f"frame {number}", colour=GREY, size=15)
            yield np.asarray(picture)


def _panels(view: ViewPicture, size: tuple[int, int]) -> Iterator[list[np.ndarray]]:
    levels = None if view.proposal_map is None else heat_levels(view.proposal_map, (view.grid.t, *size))
    for index, frame in enumerate(view.frames):
        tubelet = index // view.frames_per_tubelet
        frame = resize_frame(frame, size)
        panels = [frame, kept_panel(frame, view.kept[tubelet])]
        yield panels if levels is None else [*panels, heat_panel(frame, levels[tubelet])]


def _encode(path: Path, pictures: Iterator[np.ndarray], fps: Fraction) -> None:
    """H.264, 4:2:0, colours tagged BT.709, the index in front so that browsers can start at once."""
    import av

    try:
        with av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"}) as container:
            stream = None
            for picture in pictures:
                if stream is None:
                    stream = container.add_stream("libx264", rate=fps, options={"crf": "18", "preset": "fast"})
                    stream.height, stream.width = picture.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    _tag_colours(stream.codec_context)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                container.mux(stream.encode(frame.reformat(format="yuv420p", dst_colorspace="ITU709")))
            if stream is not None:
                container.mux(stream.encode(None))
    except av.error.FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise VidpruneError(f"cannot encode {path.suffix} video: {error.strerror or error}") from error


def _tag_colours(codec_context: object) -> None:
    for name in ("color_primaries", "color_trc", "colorspace", "color_range"):
        setattr(codec_context, name, 1)  # 1 is BT.709, and limited range for the last
