"""The default backend: FFmpeg through PyAV, frame-exact and selective.

A file is demultiplexed once; its compressed packets are held (at most the size of the file's video stream), decoded
frames never are. The packets' presentation times, sorted, number the frames, so the wanted ones are known before any
decoding:

- Matched by pts: packets of unwanted frames are decoded with `skip_frame = NONREF`, which makes the decoder drop those
  that no other frame refers to (most B frames). This changes no pixel of the wanted ones; real H.264 clips with B
  frames are read, conversion included, in 0.84 to 0.98 of the CPU time that decoding all of their frames takes
  (results/decode.csv). Only wanted frames are converted.
  A file that turns out damaged is decoded again without skipping: how a decoder patches up a damaged frame may depend
  on any frame it has seen, and the result must be that of plain decoding.
- Matched by count: where pts are missing or repeat, or where packets and frames do not pair up one to one (checked on
  the first frames), every frame is decoded and counted, as a plain sequential decode would.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter

from vidprune.errors import VideoDecodeError
from vidprune.types import VideoFrames
from vidprune.video.buffer import FrameBuffer
from vidprune.video.colour import colour_of, from_rgb, planes_of
from vidprune.video.motion import MotionRecorder, export_motion, quarter_turns_of
from vidprune.video.request import FrameRequest, check_range

# Where a non-reference frame, by the standard, is no reference for any other. Not HEVC: its sub-layer non-reference
# pictures may be referred to from higher temporal layers.
SKIPPABLE_CODECS = frozenset({"h264", "mpeg4", "mpeg2video"})

# Containers that are lists of other files or of network addresses: through one, a path would show another file's video,
# or wait for a stream that never ends.
REFUSED_FORMATS = frozenset({"concat", "dash", "hls", "imf", "rtp", "rtsp", "sap", "sdp", "webm_dash_manifest"})

# So many frames from the start are decoded without skipping, to see that packets and frames pair up.
PROBED_FRAMES = 4


def read(path: Path, request: FrameRequest) -> VideoFrames:
    """Frames of a file; see `vidprune.video.read_frames`."""
    with ExitStack() as opened:
        stream = _video_stream(opened.enter_context(_open(path)), path)
        packets, num_errors = _demux(stream)
        if not packets:
            raise VideoDecodeError(f"cannot decode {str(path)!r}: its video stream holds no data")
        reader = _Reader(path, request, stream.codec_context, packets, opened)
        buffer, total = reader.by_pts() or reader.by_count()
        fps = float(stream.average_rate or 0)
    motion = None if reader.motion is None else reader.motion.finish()
    num_errors += reader.num_errors + reader.num_concealed
    return buffer.finish(path, total, num_errors, fps, "pyav", motion)


@cache
def _open_options() -> dict[str, str]:
    """Options that keep FFmpeg to the one file: no playlists, and "%d" in a name is no pattern of many images."""
    return {"format_whitelist": ",".join(sorted(av.formats_available - REFUSED_FORMATS)), "pattern_type": "none"}


def _open(path: Path) -> Any:
    try:
        return av.open(str(path), metadata_errors="ignore", options=_open_options())
    except (av.error.FFmpegError, OSError) as error:
        raise VideoDecodeError(f"cannot decode {str(path)!r}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    if isinstance(error, av.error.InvalidDataError | av.error.EOFError):
        return f"{text}: no video file, or one whose index was lost, as in a cut download; fetch it again"
    if isinstance(error, av.error.ArgumentError):
        return f"{text}: a playlist or another list of files, which is not followed, or a damaged header"
    return text


def _video_stream(container: Any, path: Path) -> Any:
    """The first video stream that is not a still cover picture."""
    if container.format.name == "tty":  # FFmpeg would draw the text as a video
        raise VideoDecodeError(f"cannot decode {str(path)!r}: it is a text file")
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        found = "only a cover picture" if container.streams.video else "no video stream"
        raise VideoDecodeError(f"cannot decode {str(path)!r}: {found} in the file")
    if streams[0].codec_context is None:
        raise VideoDecodeError(f"cannot decode {str(path)!r}: no decoder for its video codec")
    return streams[0]


def _demux(stream: Any) -> tuple[list[Any], int]:
    """All compressed packets of a stream in file order, and how many errors cut the reading short (0 or 1)."""
    packets = []
    try:
        for packet in stream.container.demux(stream):
            if packet.size:  # the last, empty one would flush the decoder
                packets.append(packet)
    except (av.error.FFmpegError, OSError):
        return packets, 1
    return packets, 0


@dataclass
class _Reader:
    """One file's packets on their way through its decoder."""

    path: Path
    request: FrameRequest
    context: Any
    packets: list[Any]
    opened: ExitStack  # closes what was opened along the way
    num_errors: int = 0  # packets that the decoder refused, in the last pass
    num_concealed: int = 0  # frames that it handed out with damaged parts patched up from their surroundings
    # One for all frames: each frame's own would set its conversion up anew, 7 to 15 % of the CPU time of small videos.
    converter: VideoReformatter = field(default_factory=VideoReformatter)
    motion: MotionRecorder | None = None

    def __post_init__(self) -> None:
        stats = self.request.stats
        stats.packets, stats.decoded, stats.converted, stats.passes = len(self.packets), 0, 0, 0

    @property
    def is_damaged(self) -> bool:
        """What the last pass saw."""
        return self.num_errors + self.num_concealed > 0

    def by_pts(self) -> tuple[FrameBuffer, int] | None:
        """Decode selectively and match by pts. None if pts cannot name the frames; else buffer and frame count."""
        # Packets that an edit list discards are decoded as references but never shown.
        order = sorted_pts([p.pts for p in self.packets if not p.is_discard])
        if order is None:
            return None
        wanted = self.request.choose(len(order))
        check_range(wanted, len(order), self.path)
        may_skip = self.request.fast and self.context.name in SKIPPABLE_CODECS
        buffer = self._pass_by_pts(order, wanted, may_skip)
        if may_skip and buffer is not None and (self.is_damaged or not buffer.decoded.all()):
            buffer = self._pass_by_pts(order, wanted, may_skip=False)
        # Where frames are lost and nothing is damaged, packets and frames do not pair up.
        if buffer is None or not (self.is_damaged or buffer.decoded.all()):
            return None
        return buffer, len(order)

    def _pass_by_pts(self, order: list[int], wanted: np.ndarray, may_skip: bool) -> FrameBuffer | None:
        """The wanted frames, found by their place in `order`; None if the first frames do not pair up."""
        rows = {order[number]: row for row, number in enumerate(wanted)}
        buffer = FrameBuffer(wanted, self.request)
        self._start_pass("pts", len(wanted))
        for place, frame in enumerate(self._decode(rows, may_skip)):
            # An interlaced frame may be two packets, one for each field.
            pairs_up = [frame.pts] == order[place : place + 1] and not frame.interlaced_frame
            if place < PROBED_FRAMES and self.num_errors == 0 and not pairs_up:
                return None
            row = rows.get(frame.pts)
            if row is not None:
                self._store(buffer, row, frame)
            if self.motion is not None:
                self.motion.take(row, bisect_left(order, frame.pts), frame)
        return buffer

    def by_count(self) -> tuple[FrameBuffer, int]:
        """Decode every frame and match by its place in the output order. Returns the buffer and the frame count."""
        total = sum(not p.is_discard for p in self.packets)
        for _ in range(2):  # the packets' number is nearly always right; where it is not, the second pass knows better
            wanted = self.request.choose(max(total, 1))
            rows = {int(number): row for row, number in enumerate(wanted)}
            buffer = FrameBuffer(wanted, self.request)
            num_seen = 0
            self._start_pass("count", len(wanted))
            for frame in self._decode(rows, may_skip=False):
                row = rows.get(num_seen)
                if row is not None:
                    self._store(buffer, row, frame)
                if self.motion is not None:
                    self.motion.take(row, num_seen, frame)
                num_seen += 1
            if num_seen in (total, 0):
                break
            total = num_seen
        if num_seen:
            check_range(wanted, num_seen, self.path)
        return buffer, num_seen

    def _start_pass(self, matched_by: str, num_wanted: int) -> None:
        stats = self.request.stats
        if stats.passes:  # flushing would not do: a decoder keeps what a damaged file told it of its size and format
            self.context = _video_stream(self.opened.enter_context(_open(self.path)), self.path).codec_context
        self.context.thread_count = self.request.num_threads
        if self.request.num_threads > 1:
            self.context.thread_type = "FRAME"
        if self.request.motion:
            export_motion(self.context, self.path)
        stats.passes += 1
        stats.matched_by = matched_by
        self.num_errors = self.num_concealed = 0
        self.motion = MotionRecorder(num_wanted) if self.request.motion else None

    def _decode(self, rows: dict[int, int], may_skip: bool) -> Iterator[Any]:
        """Decoded frames in presentation order. Damage is counted, and a packet that cannot be decoded passed over."""
        context, stats, start = self.context, self.request.stats, self.request.stats.decoded
        context.skip_frame = "DEFAULT"
        for packet in [*self.packets, None]:  # None flushes
            if may_skip and packet is not None:
                needed = packet.pts in rows or stats.decoded - start < PROBED_FRAMES
                context.skip_frame = "DEFAULT" if needed else "NONREF"
            try:
                frames = context.decode(packet)
            except av.error.FFmpegError:
                self.num_errors += 1
                continue
            for frame in frames:
                stats.decoded += 1
                self.num_concealed += frame.is_corrupt
                yield frame

    def _store(self, buffer: FrameBuffer, row: int, frame: Any) -> None:
        """Write an upright frame into its row. The first one settles the colour of all."""
        self.request.stats.converted += 1
        own = colour_of(frame) if self.request.colour == "yuv" else "rgb"
        colour = buffer.colour or own
        if colour == "rgb":
            buffer.put(row, self._convert(frame))
        elif colour == own:
            buffer.put_planes(row, [_upright(plane, frame) for plane in planes_of(frame)], colour)
        else:  # the stream changed its format
            buffer.put_planes(row, from_rgb(self._convert(frame), colour), colour)

    def _convert(self, frame: Any) -> np.ndarray:
        """A frame as upright RGB, uint8 [h, w, 3]."""
        # More threads cost CPU time, and videos are independent.
        converter = self.converter if self.request.fast else VideoReformatter()
        return _upright(converter.reformat(frame, format="rgb24", threads=1).to_ndarray(), frame)


def _upright(image: np.ndarray, frame: Any) -> np.ndarray:
    quarter_turns = quarter_turns_of(frame)
    return np.ascontiguousarray(np.rot90(image, quarter_turns)) if quarter_turns else image


def sorted_pts(pts: list[int | None]) -> list[int] | None:
    """Presentation times in order, or None where one is missing or appears twice, so that they cannot name frames."""
    known = [p for p in pts if p is not None]
    if not known or len(known) != len(pts) or len(set(known)) != len(known):
        return None
    return sorted(known)
