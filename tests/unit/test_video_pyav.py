"""The default backend: what it decodes and converts, what it does with damage, and random requests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media import number_image, plain_decode, plain_resize, read_number, remux, write_video
from vidprune.errors import ConfigError, UnknownNameError, VideoDecodeError
from vidprune.video import DecodeStats, ViewPlan, read_frames, read_video
from vidprune.video.backends.pyav import PROBED_FRAMES, _Reader, sorted_pts
from vidprune.video.buffer import FrameBuffer
from vidprune.video.request import FrameRequest


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 frames, closed GOP, two B frames between references."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture(scope="module")
def plain(clip: Path) -> list[np.ndarray]:
    return plain_decode(clip)


# ---- what is decoded and converted


@pytest.mark.parametrize("wanted", [range(0, 60, 4), range(1, 60, 4), [3], [59], range(60)])
def test_each_wanted_frame_is_converted_once_and_unneeded_b_frames_are_not_decoded(clip: Path, wanted: range) -> None:
    with av.open(str(clip)) as container:
        is_b = [frame.pict_type == av.video.frame.PictureType.B for frame in container.decode(video=0)]
    stats = DecodeStats()
    read_frames(clip, wanted, stats=stats)
    needed = sum(not is_b[n] or n in wanted for n in range(60))
    assert (stats.converted, stats.packets, stats.passes, stats.matched_by) == (len(wanted), 60, 1, "pts")
    assert needed <= stats.decoded <= min(needed + PROBED_FRAMES, 60)
    assert any(is_b)


@pytest.mark.parametrize("colour", ["rgb", "yuv"])
def test_the_fast_way_can_be_switched_off_and_gives_the_same_frames(clip: Path, colour: str) -> None:
    fast, plain = DecodeStats(), DecodeStats()
    frames = [
        read_frames(clip, range(0, 60, 4), short_side=64, stats=stats, colour=colour, fast=stats is fast).frames
        for stats in (fast, plain)
    ]
    np.testing.assert_array_equal(*frames)
    assert (fast.converted, plain.converted) == (15, 15)
    assert fast.decoded < plain.decoded == 60


def test_without_usable_pts_every_frame_is_decoded_once_and_only_wanted_ones_converted(tmp_path: Path) -> None:
    path, stats = write_video(tmp_path / "raw.h264"), DecodeStats()
    read_frames(path, range(0, 60, 4), stats=stats)
    assert stats == DecodeStats(packets=60, decoded=60, converted=15, passes=1, matched_by="count")


def test_sorted_pts_refuses_missing_and_repeated_times() -> None:
    assert sorted_pts([0, 4, 2, 1]) == [0, 1, 2, 4]
    assert sorted_pts([-2, 0, 1]) == [-2, 0, 1]
    for unusable in ([], [None], [0, None, 1], [0, 1, 1]):
        assert sorted_pts(unusable) is None


def test_a_stream_that_starts_without_its_key_frame_is_numbered_as_plain_decoding_does(tmp_path: Path) -> None:
    """Its first packets give no frame, so that packets and frames do not pair up."""
    source = write_video(tmp_path / "source.ts", options={"g": "20"})
    path = remux(source, tmp_path / "cut.ts", first=7)
    plain = plain_decode(path)
    for wanted in (range(0, len(plain), 4), [5], [len(plain) - 1]):
        video = read_frames(path, wanted)
        assert video.num_frames_total == len(plain)
        np.testing.assert_array_equal(video.frames, np.stack([plain[n] for n in wanted]))
    planned = read_frames(path, lambda count: range(count - 1, -1, -7))
    assert planned.frame_numbers.tolist() == list(range(len(plain) - 1, -1, -7))[::-1]


def test_a_packet_that_silently_gives_no_frame_makes_the_frames_be_counted(
    clip: Path, plain: list[np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a plain sequential decode would number them: all later frames move up by one."""
    decode = _Reader._decode

    def without_frame_20(self: _Reader, rows: dict, may_skip: bool) -> Iterator:
        return (frame for frame in decode(self, rows, may_skip) if frame.pts != frame.duration * 20)

    monkeypatch.setattr(_Reader, "_decode", without_frame_20)
    stats = DecodeStats()
    video = read_frames(clip, lambda count: range(0, count, 4), stats=stats)
    assert (video.num_frames_total, video.num_filled, stats.matched_by) == (59, 0, "count")
    assert [read_number(image) for image in video.frames] == [n + (n >= 20) for n in range(0, 59, 4)]


def test_two_codec_threads_give_the_same_frames(clip: Path) -> None:
    one, two = (read_frames(clip, range(2, 60, 4), num_threads=n) for n in (1, 2))
    np.testing.assert_array_equal(one.frames, two.frames)


def test_counters_start_anew_with_every_read(clip: Path) -> None:
    stats = DecodeStats()
    for _ in range(2):
        read_frames(clip, [0], stats=stats)
    assert (stats.converted, stats.passes) == (1, 1)


def test_importing_the_package_loads_no_decoder() -> None:
    code = (
        "import sys, vidprune.video; print(sorted({'av', 'cv2', 'decord', 'torch', 'torchcodec'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- requests


def test_frames_come_distinct_and_ascending(clip: Path, plain: list[np.ndarray]) -> None:
    video = read_frames(clip, [7, 3, 7, 50, 3])
    assert video.frame_numbers.tolist() == [3, 7, 50]
    assert video.frame_numbers.dtype == np.int64
    np.testing.assert_array_equal(video.frames, np.stack([plain[n] for n in (3, 7, 50)]))
    assert video.fps == 30.0
    of_clips = FrameRequest(np.array([[7, 3], [7, 50]], dtype=np.uint16)).choose(60)  # as a plan gives them
    assert (of_clips.tolist(), of_clips.dtype) == ([3, 7, 50], np.int64)


def test_a_function_is_given_the_frame_count(clip: Path) -> None:
    seen = []
    video = read_frames(clip, lambda count: seen.append(count) or [count - 1])
    assert seen == [60]
    assert read_number(video.frames[0]) == 59


def test_read_video_reads_what_the_plan_wants(clip: Path, plain: list[np.ndarray]) -> None:
    for protocol in ("videomae", "mmaction"):
        plan = ViewPlan(num_frames=4, frame_stride=3, num_segments=3, short_side=70, crop_size=64, protocol=protocol)
        video = read_video(clip, plan)
        height, width = plan.resized_size(96, 160)
        assert video.frame_numbers.tolist() == plan.wanted_frames(60).tolist()
        expected = [plain_resize(plain[n], height, width) for n in video.frame_numbers]
        np.testing.assert_array_equal(video.frames, np.stack(expected))
    assert ViewPlan(short_side=70, crop_size=64).resized_size(96, 160) != plan.resized_size(96, 160)


@pytest.mark.parametrize("wanted", [[60], [-1], [0, 1000], lambda count: [count]])
def test_a_frame_out_of_range_is_refused_with_the_valid_range(clip: Path, wanted: object) -> None:
    with pytest.raises(
        ConfigError, match=r"clip\.mp4' has 60 frames, 0 to 59|frame number must be a whole number >= 0"
    ):
        read_frames(clip, wanted)  # type: ignore[arg-type]


def test_a_frame_out_of_range_is_never_filled_in_where_frames_are_counted(tmp_path: Path) -> None:
    path = write_video(tmp_path / "raw.h264")
    with pytest.raises(ConfigError, match=r"frame 60 is out of range: .*raw\.h264' has 60 frames, 0 to 59"):
        read_frames(path, [3, 60])


def test_decord_refuses_a_frame_out_of_range_like_pyav(clip: Path) -> None:
    with pytest.raises(ConfigError, match=r"frame 60 is out of range: .*clip\.mp4' has 60 frames, 0 to 59"):
        read_frames(clip, [3, 60], backend="decord")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"frames": []}, "no frames asked for"),
        ({"frames": [True]}, "frame number must be a whole number >= 0, got True"),
        ({"frames": [0.0]}, "frame number must be a whole number >= 0, got 0.0"),
        ({"frames": np.array([3.7])}, "frame number must be a whole number >= 0, got .*3.7"),
        ({"frames": np.array([False, True])}, "frame number must be a whole number >= 0, got .*False"),
        ({"short_side": 0}, "short_side must be a whole number >= 1, got 0"),
        ({"short_side": float("nan")}, "short_side must be a whole number >= 1, got nan"),
        ({"rounding": "up"}, "rounding must be one of floor, round, got 'up'"),
        ({"num_threads": 0}, "num_threads must be a whole number >= 1, got 0"),
    ],
)
def test_bad_options_are_refused_before_anything_is_decoded(clip: Path, options: dict, line: str) -> None:
    stats = DecodeStats()
    with pytest.raises(ConfigError, match=line):
        read_frames(clip, **{"frames": [0], **options}, stats=stats)
    assert stats.decoded == 0


def test_an_unknown_backend_is_refused_with_the_known_ones(clip: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown video backend 'pyaw': did you mean 'pyav'"):
        read_frames(clip, [0], backend="pyaw")


# ---- resize


@pytest.mark.parametrize(("rounding", "width"), [("floor", 93), ("round", 93), ("floor", 186), ("round", 187)])
def test_the_resize_is_that_of_opencv(clip: Path, plain: list[np.ndarray], rounding: str, width: int) -> None:
    short = {93: 56, 186: 112, 187: 112}[width]
    video = read_frames(clip, [0, 9], short_side=short, rounding=rounding)
    expected = [cv2.resize(plain[n], (width, short), interpolation=cv2.INTER_LINEAR) for n in (0, 9)]
    np.testing.assert_array_equal(video.frames, np.stack(expected))
    assert video.source_size == (96, 160)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_video_is_turned_upright_before_the_resize(tmp_path: Path, degrees: int) -> None:
    path = write_video(tmp_path / "turned.mp4", range(5), rotation=degrees)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    upright = cv2.rotate(
        stored, {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}[degrees]
    )
    video = read_frames(path, [0], short_side=48)
    assert video.source_size == upright.shape[:2]
    size = (48, 80) if degrees != 180 else (80, 48)
    np.testing.assert_array_equal(video.frames[0], cv2.resize(upright, size, interpolation=cv2.INTER_LINEAR))


def buffer_with(rows: dict[int, int], wanted: list[int]) -> FrameBuffer:
    buffer = FrameBuffer(np.array(wanted), FrameRequest(wanted))
    for row, level in rows.items():
        buffer.put(row, np.full((4, 6, 3), level, dtype=np.uint8))
    return buffer


def test_a_gap_is_filled_from_the_nearest_frame_number_and_the_earlier_on_a_tie() -> None:
    buffer = buffer_with({1: 11, 3: 33}, wanted=[0, 4, 8, 12, 13])
    video = buffer.finish(Path("x.mp4"), 20, 2, 30.0, "pyav")
    assert video.frames[:, 0, 0, 0].tolist() == [11, 11, 11, 33, 33]
    assert video.filled.tolist() == [True, False, True, False, True]
    assert (video.num_filled, video.num_errors) == (3, 2)


def test_no_frame_at_all_is_an_error() -> None:
    with pytest.raises(VideoDecodeError, match="none of the 2 wanted frames came out of the decoder"):
        buffer_with({}, wanted=[0, 4]).finish(Path("x.mp4"), 20, 2, 30.0, "pyav")


# ---- damage


def packet_places(path: Path) -> list[tuple[int, int]]:
    """(position, size) of every video packet in the file."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size) for p in container.demux(container.streams.video[0]) if p.size]


@pytest.mark.parametrize(("damaged", "numbers"), [(8, [0, 4, 4, 12, 16]), (2, [0, 4, 8, 12, 16])])
def test_one_damaged_packet_costs_one_frame(tmp_path: Path, damaged: int, numbers: list[int]) -> None:
    """Key frames only, so that the damage stays in its packet; one of the first few must not shift those after it."""
    path = write_video(tmp_path / "keys.mp4", range(20), options={"g": "1", "bf": "0"})
    position, size = packet_places(path)[damaged]
    data = bytearray(path.read_bytes())
    data[position : position + size] = b"\xff" * size
    path.write_bytes(data)
    stats = DecodeStats()
    video = read_frames(path, range(0, 20, 4), stats=stats)
    assert [read_number(image) for image in video.frames] == numbers
    assert video.filled.tolist() == [False, False, damaged == 8, False, False]
    assert (video.num_errors, video.num_filled, video.num_frames_total) == (1, int(damaged == 8), 20)
    assert (stats.decoded, stats.matched_by) == (19 * stats.passes, "pts")


def test_a_truncated_file_gives_what_is_left(tmp_path: Path) -> None:
    """The index comes first in this file, so that the frames before the cut can be found."""
    whole = write_video(tmp_path / "whole.mp4", container_options={"movflags": "faststart"})
    plain = plain_decode(whole)
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    video = read_frames(path, lambda count: range(0, count, 4))
    assert 10 < video.num_frames_total < 60
    assert video.num_errors >= 1
    assert video.num_filled <= 2
    for number, image, filled in zip(video.frame_numbers, video.frames, video.filled, strict=True):
        assert filled or number >= video.num_frames_total - 4 or np.array_equal(image, plain[number])


@pytest.mark.parametrize("seed", range(6))
def test_flipped_bits_never_stop_the_reading(tmp_path: Path, clip: Path, plain: list[np.ndarray], seed: int) -> None:
    """Damage from the middle on: what comes before is exact, every wanted row is there, gaps are owned up to."""
    places = packet_places(clip)
    rng = np.random.default_rng(seed)
    data = bytearray(clip.read_bytes())
    for position, size in places[30:]:
        if rng.random() < 0.4:
            data[position + int(rng.integers(size))] ^= int(rng.integers(1, 256))
    path = tmp_path / "flipped.mp4"
    path.write_bytes(data)
    video = read_frames(path, lambda count: range(0, count, 4))
    assert len(video.frames) == len(video.frame_numbers) == len(video.filled)
    assert video.num_filled == video.filled.sum()
    for n in range(0, 24, 4):
        np.testing.assert_array_equal(video.frames[n // 4], plain[n])


def test_a_damaged_file_without_pts_is_read_too(tmp_path: Path) -> None:
    path = write_video(tmp_path / "raw.avi", codec="mpeg4", options={"g": "1", "b": "4000000"})
    position, size = packet_places(path)[20]
    data = bytearray(path.read_bytes())
    data[position : position + size] = b"\x00" * size
    path.write_bytes(data)
    video = read_frames(path, lambda count: range(0, count, 4))
    assert video.num_frames_total in (59, 60)
    assert [read_number(image) for image in video.frames[:5]] == [0, 4, 8, 12, 16]


# ---- random requests


RANDOM_FILES: dict[str, Callable[[Path], Path]] = {
    "closed": lambda folder: write_video(folder / "closed.mp4", range(40)),
    "open": lambda folder: write_video(folder / "o.mp4", range(40), options={"x264-params": "open-gop=1", "g": "9"}),
    "pyramid": lambda folder: write_video(folder / "p.mkv", range(40), options={"bf": "5", "b-pyramid": "normal"}),
    "stream": lambda folder: write_video(folder / "s.ts", range(40), start_s=3),
    "no_pts": lambda folder: write_video(folder / "n.avi", range(40)),
}


@pytest.fixture(scope="module")
def random_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[np.ndarray]]]:
    folder = tmp_path_factory.mktemp("random")
    paths = {name: make(folder) for name, make in RANDOM_FILES.items()}
    return {name: (path, plain_decode(path)) for name, path in paths.items()}


@settings(max_examples=40, deadline=None)
@given(name=st.sampled_from(sorted(RANDOM_FILES)), wanted=st.lists(st.integers(0, 39), min_size=1, max_size=12))
def test_any_request_gives_the_frames_of_plain_decoding(random_files: dict, name: str, wanted: list[int]) -> None:
    path, plain = random_files[name]
    video = read_frames(path, wanted)
    assert video.frame_numbers.tolist() == sorted(set(wanted))
    np.testing.assert_array_equal(video.frames, np.stack([plain[n] for n in sorted(set(wanted))]))


def test_the_made_pictures_are_as_drawn(plain: list[np.ndarray]) -> None:
    """Guards the other tests: coding loses little, so a frame is recognised by its picture as well as by its number."""
    assert np.abs(plain[37].astype(int) - number_image(37)).mean() < 12
