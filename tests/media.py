"""Makes small test videos with PyAV. Every frame shows its own number in large blocks, so a wrong one is seen."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition

BLOCK_ROWS, BLOCK_COLUMNS = 2, 5
# Closed GOP, two non-reference B frames between references, always: so that there is something to skip.
X264 = {
    "bf": "2",
    "b-pyramid": "none",
    "b_strategy": "0",
    "sc_threshold": "0",
    "g": "24",
    "crf": "20",
    "preset": "fast",
}


def number_image(number: int, height: int = 96, width: int = 160) -> np.ndarray:
    """An RGB picture of `number` (0 to 1023): ten black or white blocks over a faint coloured ramp, uint8 [h, w, 3]."""
    rows = np.arange(height)[:, None] * BLOCK_ROWS // height
    columns = np.arange(width)[None, :] * BLOCK_COLUMNS // width
    bits = (number >> (rows * BLOCK_COLUMNS + columns)) & 1  # [h, w]
    image = np.repeat((40 + 170 * bits)[..., None], 3, axis=2)
    image[..., 0] += (np.arange(width) * 30 // width)[None, :]
    image[..., 2] += (np.arange(height) * 30 // height)[:, None]
    return image.astype(np.uint8)


def read_number(image: np.ndarray) -> int:
    """The number in a picture of `number_image`, at any size: the brightness of each block's middle."""
    height, width = image.shape[:2]
    number = 0
    for bit in range(BLOCK_ROWS * BLOCK_COLUMNS):
        row, column = divmod(bit, BLOCK_COLUMNS)
        y, x = (2 * row + 1) * height // (2 * BLOCK_ROWS), (2 * column + 1) * width // (2 * BLOCK_COLUMNS)
        margin_y, margin_x = height // (8 * BLOCK_ROWS), width // (8 * BLOCK_COLUMNS)
        middle = image[y - margin_y : y + margin_y + 1, x - margin_x : x + margin_x + 1]
        number |= int(middle.mean() > 137) << bit
    return number


def write_video(
    path: Path,
    numbers: Iterable[int] = range(60),
    *,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 160),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    fps: int = 30,
    pts_ms: Sequence[int] | None = None,
    start_s: int = 0,
    rotation: int = 0,
    pixel_aspect: Fraction | None = None,
    audio: bool = False,
    cover: bool = False,
    container_options: dict[str, str] | None = None,
    format: str | None = None,
) -> Path:
    """Encode one frame per number. The container follows from the path's suffix unless `format` names it.

    Args:
        size: (height, width).
        options: codec options; x264 gets `X264` under them.
        pts_ms: presentation times in milliseconds instead of an even `fps`.
        start_s: shifts all presentation times.
        rotation: counter-clockwise degrees in the container's display matrix.
        cover: puts an attached picture first, as a video stream of its own (MP4 only).
    """
    time_base = Fraction(1, 1000) if pts_ms is not None else Fraction(1, fps)
    with av.open(str(path), "w", format=format, options=container_options or {}) as out:
        picture = _add_cover(out) if cover else None
        stream = out.add_stream(codec, rate=fps, options={**(X264 if codec == "libx264" else {}), **(options or {})})
        stream.height, stream.width = size
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        stream.codec_context.thread_count = 1
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation:
            stream.set_display_rotation(rotation)
        sound = out.add_stream("aac", rate=16000) if audio else None
        if picture is not None:
            _write_cover(out, picture)
        offset = int(start_s / time_base)
        for i, number in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(number_image(number, *size), format="rgb24")
            frame.pts = (i if pts_ms is None else pts_ms[i]) + offset
            frame.time_base = time_base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
        if sound is not None:
            _write_silence(out, sound)
    if cover:
        _metadata_before_tracks(path)
    return path


def write_audio(path: Path) -> Path:
    """A file with sound and no picture."""
    with av.open(str(path), "w") as out:
        _write_silence(out, out.add_stream("aac", rate=16000))
    return path


def remux(source: Path, target: Path, *, first: int = 0, shift: int = 0, options: dict[str, str] | None = None) -> Path:
    """Copy the video packets from number `first` on, `shift` ticks earlier, without coding them again.

    In MP4, packets that end up before time 0 are hidden by an edit list, as after a cut with stream copy.
    """
    with av.open(str(source)) as src, av.open(str(target), "w", options=options or {}) as out:
        stream = src.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in [p for p in src.demux(stream) if p.size][first:]:
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copy
            out.mux(packet)
    return target


def plain_decode(path: Path) -> list[np.ndarray]:
    """Every frame of the first real video stream by sequential decoding, upright RGB; backends are held against it."""
    images = []
    with av.open(str(path), metadata_errors="ignore") as container:
        stream = next(s for s in container.streams.video if not s.disposition & Disposition.attached_pic)
        for frame in container.decode(stream):
            images.append(np.rot90(frame.to_ndarray(format="rgb24"), round(frame.rotation / 90)))
    return images


def plain_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The resize that frames are held against."""
    import cv2

    return cv2.resize(np.ascontiguousarray(image), (width, height), interpolation=cv2.INTER_LINEAR)


def _add_cover(out: Any) -> Any:
    stream = out.add_stream("mjpeg", rate=1)
    stream.height, stream.width, stream.pix_fmt = 64, 64, "yuvj420p"
    stream.disposition = Disposition.attached_pic
    return stream


def _write_cover(out: Any, stream: Any) -> None:
    frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 200, dtype=np.uint8), format="rgb24")
    frame.pts = 0
    out.mux(stream.encode(frame))
    out.mux(stream.encode())


def _metadata_before_tracks(path: Path) -> None:
    """Swap two boxes of an MP4's index, so that the cover picture becomes the first video stream. No size changes."""
    data = path.read_bytes()
    start = data.index(b"moov") - 4
    end = start + int.from_bytes(data[start : start + 4], "big")
    boxes, place = [], start + 8
    while place < end:
        size = int.from_bytes(data[place : place + 4], "big")
        boxes.append(data[place : place + size])
        place += size
    boxes.sort(key=lambda box: [b"mvhd", b"udta", b"trak"].index(box[4:8]))
    path.write_bytes(data[: start + 8] + b"".join(boxes) + data[end:])


def _write_silence(out: Any, stream: Any) -> None:
    for i in range(32):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        frame.pts = i * 1024
        out.mux(stream.encode(frame))
    out.mux(stream.encode())
