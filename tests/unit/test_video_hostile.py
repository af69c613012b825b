"""Files that mislead: each is one clear error line, and no other file's frames come in its place."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from tests.media import number_image, write_video
from vidprune.errors import VideoDecodeError
from vidprune.video import read_frames
from vidprune.video.backends import pyav

PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile clip.ts\n",
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nclip.ts\n#EXT-X-ENDLIST\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_never_shows_another_file(tmp_path: Path, kind: str) -> None:
    write_video(tmp_path / "clip.ts", range(10))
    path = tmp_path / "list.m3u8"
    path.write_text(PLAYLISTS[kind])
    with pytest.raises(VideoDecodeError, match="a playlist or another list of files, which is not followed") as caught:
        read_frames(path, [0])
    assert str(path) in str(caught.value)


def test_a_percent_sign_in_a_name_is_no_pattern_of_images(tmp_path: Path) -> None:
    for i in range(3):
        cv2.imwrite(str(tmp_path / f"img{i}.png"), number_image(i))
    (tmp_path / "img%d.png").write_bytes(b"no picture")
    with pytest.raises(VideoDecodeError, match="img%d"):
        read_frames(tmp_path / "img%d.png", [0])


def grey_video(path: Path, height: int, width: int) -> Path:
    """Uncompressed, so that any size can be written: two grey frames."""
    frame = b"FRAME\n" + b"\x80" * (height * width)
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F30:1 Cmono\n".encode() + 2 * frame)
    return path


def test_slivers_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    path = grey_video(tmp_path / "sliver.y4m", 65000, 1)
    with pytest.raises(
        VideoDecodeError, match="65000 x 1 pixels; resized are those whose long side is at most 32"
    ) as e:
        read_frames(path, [0, 1], short_side=224)
    assert str(path) in str(e.value)
    assert read_frames(path, [0]).frames.shape == (1, 65000, 1, 3), "as it is, it can be had"
    assert read_frames(grey_video(tmp_path / "wide.y4m", 10, 320), [0], short_side=20).frames.shape == (1, 20, 640, 3)


@pytest.mark.parametrize("error", [MemoryError("Unable to\n allocate"), cv2.error("bad size"), ZeroDivisionError()])
def test_whatever_a_library_raises_is_an_error_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def broken(*_: object) -> np.ndarray:
        raise error

    path = write_video(tmp_path / "clip.mp4", range(3))
    monkeypatch.setattr(pyav._Reader, "_convert", broken)
    with pytest.raises(VideoDecodeError) as caught:
        read_frames(path, [0])
    message = str(caught.value)
    assert str(path) in message
    assert type(error).__name__ in message
    assert "\n" not in message


def test_a_name_that_is_too_long_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(VideoDecodeError, match="no such file"):
        read_frames(tmp_path / ("x" * 300 + ".mp4"), [0])
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    with pytest.raises(VideoDecodeError, match="a link that leads to no file"):
        read_frames(tmp_path / "loop.mp4", [0])


def damaged(whole: Path, path: Path, seed: int) -> Path:
    """A copy with flipped bits in three packets, none of them a key frame's; which ones depends on the seed."""
    with av.open(str(whole)) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size and not p.is_keyframe]
    rng = np.random.default_rng(seed)
    data = bytearray(whole.read_bytes())
    for position, size in [places[i] for i in rng.choice(len(places), 3, replace=False)]:
        data[position + size // 3 + int(rng.integers(size // 2))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_file_gives_the_frames_of_plain_decoding_and_says_it_is_damaged(tmp_path: Path, seed: int) -> None:
    """FFmpeg hides much damage without an error, and how it does so may depend on frames that need not be decoded."""
    path = damaged(write_video(tmp_path / "whole.mp4"), tmp_path / "damaged.mp4", seed)
    fast, plain = (read_frames(path, range(0, 60, 4), fast=fast) for fast in (True, False))
    np.testing.assert_array_equal(fast.frames, plain.frames)
    np.testing.assert_array_equal(fast.filled, plain.filled)
    assert plain.num_errors > 0
    changed = (plain.frames != read_frames(tmp_path / "whole.mp4", range(0, 60, 4)).frames).any()
    assert fast.num_errors > 0 or not changed


def test_what_a_damaged_file_said_of_its_size_is_forgotten_before_it_is_read_again(tmp_path: Path) -> None:
    """Stray headers of another size in the middle; a decoder that is only flushed starts anew with that."""
    other = write_video(tmp_path / "other.mp4", range(3), size=(48, 64))
    with av.open(str(other)) as container:
        record = container.streams.video[0].codec_context.extradata  # lengths of two bytes before the two headers
    sequence_end = 8 + int.from_bytes(record[6:8], "big")
    picture_end = sequence_end + 3 + int.from_bytes(record[sequence_end + 1 : sequence_end + 3], "big")
    headers = [record[8:sequence_end], record[sequence_end + 3 : picture_end]]
    whole = write_video(tmp_path / "whole.mp4")
    with av.open(str(whole)) as container:
        key = [p for p in container.demux(video=0) if p.size and p.is_keyframe][1]
    data = bytearray(whole.read_bytes())
    units = b"".join(len(header).to_bytes(4, "big") + header for header in headers)
    units += (key.size - len(units) - 4).to_bytes(4, "big") + b"\x0c"  # the rest is a unit that decoders skip
    data[key.pos : key.pos + len(units)] = units
    (tmp_path / "damaged.mp4").write_bytes(data)
    fast, plain = (read_frames(tmp_path / "damaged.mp4", range(0, 60, 4), fast=fast) for fast in (True, False))
    assert fast.source_size == plain.source_size == (96, 160)
    np.testing.assert_array_equal(fast.frames, plain.frames)
    assert fast.num_errors == plain.num_errors > 0
