"""Every backend against plain sequential decoding, on files made to be difficult. Each frame shows its own number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from tests.media import number_image, plain_decode, read_number, remux, write_video
from vidprune.errors import MissingDependencyError, VideoDecodeError
from vidprune.video import DecodeStats, read_frames

OPEN_GOP = {"x264-params": "open-gop=1", "g": "12"}


@dataclass(frozen=True)
class Case:
    """A made file and the numbers that its frames show in presentation order."""

    make: Callable[[Path], Path]
    numbers: Sequence[int] = range(60)
    rotation: int = 0


def _edit_list(folder: Path) -> Path:
    """A cut with stream copy: from the key frame 12 on, where an edit list hides 12 to 16."""
    ticks_per_frame = 512
    source = write_video(folder / "source.mp4", options={"g": "12"})
    return remux(source, folder / "edit_list.mp4", first=12, shift=17 * ticks_per_frame)


def _size_change(folder: Path) -> Path:
    """Two transport streams end to end: the size changes in the middle and the presentation times start again."""
    first = write_video(folder / "first.ts", range(30))
    second = write_video(folder / "second.ts", range(30, 60), size=(128, 160))
    path = folder / "size_change.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    return path


def _written(name: str, **options: object) -> Callable[[Path], Path]:
    return lambda folder: write_video(folder / name, **options)  # type: ignore[arg-type]


VP9 = {"deadline": "realtime", "cpu-used": "8"}
HEVC = {"x265-params": "bframes=3:log-level=error"}
UNEVEN_MS = np.cumsum(np.tile([10, 50, 33, 120], 15)).tolist()

CASES = {
    "closed_gop": Case(_written("closed_gop.mp4")),
    "no_b_frames": Case(_written("no_b_frames.mp4", options={"bf": "0"})),
    "open_gop": Case(_written("open_gop.mp4", options=OPEN_GOP)),
    "variable_frame_rate": Case(_written("vfr.mp4", pts_ms=UNEVEN_MS)),
    "edit_list": Case(_edit_list, numbers=range(17, 60)),
    "mpegts": Case(_written("mpegts.ts")),
    "mkv": Case(_written("mkv.mkv")),
    "avi_mpeg4": Case(_written("mpeg4.avi", codec="mpeg4", options={"bf": "2", "b": "4000000"})),
    "avi_h264": Case(_written("h264.avi")),
    "vp9_webm": Case(_written("vp9.webm", codec="libvpx-vp9", options=VP9)),
    "hevc": Case(_written("hevc.mp4", codec="libx265", options=HEVC)),
    "mpeg4_mp4": Case(_written("mpeg4.mp4", codec="mpeg4", options={"bf": "2"})),
    "mpeg2_ts": Case(_written("mpeg2.ts", codec="mpeg2video", options={"bf": "2"})),
    "rotated_90": Case(_written("rotated_90.mp4", rotation=90), rotation=90),
    "rotated_180": Case(_written("rotated_180.mp4", rotation=180), rotation=180),
    "rotated_270": Case(_written("rotated_270.mp4", rotation=270), rotation=270),
    "ten_bit": Case(_written("ten_bit.mp4", pix_fmt="yuv420p10le")),
    "full_chroma_odd_size": Case(_written("odd.mp4", pix_fmt="yuv444p", size=(97, 163))),
    "grey": Case(_written("grey.mkv", codec="ffv1", pix_fmt="gray")),
    "alpha": Case(_written("alpha.mkv", codec="ffv1", pix_fmt="bgra")),
    "interlaced": Case(_written("interlaced.mp4", options={"flags": "+ildct+ilme"})),
    "wide_pixels": Case(_written("wide_pixels.mp4", pixel_aspect=Fraction(4, 3))),
    "one_frame": Case(_written("one_frame.mp4", numbers=[7]), numbers=[7]),
    "no_pts": Case(_written("no_pts.h264")),
    "starts_at_5_s_mp4": Case(_written("late.mp4", start_s=5)),
    "starts_at_5_s_mkv": Case(_written("late.mkv", start_s=5)),
    "starts_at_5_s_ts": Case(_written("late.ts", start_s=5)),
    "with_sound": Case(_written("sound.mp4", audio=True)),
    "cover_picture_first": Case(_written("cover.mp4", cover=True)),
    "size_change": Case(_size_change),
}

# What the optional backends get wrong without a word, and what they refuse. A test below fails when one of these
# becomes right, so that the documentation follows.
SILENTLY_WRONG = {
    "decord": {
        "open_gop",
        "edit_list",
        "mpegts",
        "mpeg2_ts",
        "starts_at_5_s_ts",
        "avi_h264",
        "avi_mpeg4",
        "mpeg4_mp4",
        "size_change",
    },
    "torchcodec": {"avi_h264"},
}
REFUSED = {
    "decord": {"no_pts"},
    "torchcodec": {
        "avi_mpeg4",
        "mpegts",
        "mpeg2_ts",
        "starts_at_5_s_ts",
        "no_pts",
        "size_change",
        "cover_picture_first",
    },
}
# Where pts are missing or repeat, or may not pair up with packets, so that PyAV decodes and counts every frame.
COUNTED = {"avi_h264", "no_pts", "size_change", "interlaced"}
OTHER_BACKENDS = ("decord", "torchcodec")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, list[np.ndarray]]]:
    """Makes a case's file once; returns it with its frames by plain decoding."""
    cache: dict[str, tuple[Path, list[np.ndarray]]] = {}

    def get(name: str) -> tuple[Path, list[np.ndarray]]:
        if name not in cache:
            path = CASES[name].make(tmp_path_factory.mktemp(name))
            cache[name] = (path, plain_decode(path))
        return cache[name]

    return get


def wanted_sets(count: int) -> list[list[int]]:
    """All four phases of the usual stride, runs of neighbours (which make other backends seek), and the last frame."""
    sets = [list(range(phase, count, 4)) for phase in range(4)]
    sets += [[n for n in range(start, start + 5) if n < count] for start in (11, 22, 31)]
    return [s for s in [*sets, [count - 1]] if s]


def shown(image: np.ndarray, case: Case) -> int:
    return read_number(np.rot90(image, -case.rotation // 90))


def wrong_frames(path: Path, case: Case, backend: str) -> int:
    """How many frames, over all wanted sets, do not show the number they should; a file refused is an error."""
    wrong = 0
    for wanted in wanted_sets(len(case.numbers)):
        video = read_frames(path, wanted, backend=backend)
        wrong += sum(shown(image, case) != case.numbers[n] for image, n in zip(video.frames, wanted, strict=True))
        wrong += video.num_frames_total != len(case.numbers)
    return wrong


@pytest.mark.parametrize("name", CASES)
def test_pyav_equals_plain_decoding_bit_for_bit(name: str, made: Callable) -> None:
    case, (path, plain) = CASES[name], made(name)
    assert [shown(image, case) for image in plain] == list(case.numbers)
    for wanted in wanted_sets(len(plain)):
        # One size: so that the rows of a stream that changes its size can be compared as well.
        same_size = [n for n in wanted if plain[n].shape == plain[wanted[0]].shape]
        stats = DecodeStats()
        video = read_frames(path, same_size, stats=stats)
        assert stats.matched_by == ("count" if name in COUNTED else "pts")
        assert video.num_frames_total == len(plain)
        assert video.frame_numbers.tolist() == same_size
        assert video.source_size == plain[same_size[0]].shape[:2]
        assert (video.num_errors, video.num_filled, video.backend) == (0, 0, "pyav")
        np.testing.assert_array_equal(video.frames, np.stack([plain[n] for n in same_size]))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", OTHER_BACKENDS)
def test_other_backends_show_the_right_frames_or_are_known_not_to(backend: str, name: str, made: Callable) -> None:
    case, (path, _) = CASES[name], made(name)
    try:
        wrong = wrong_frames(path, case, backend)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    except VideoDecodeError as error:
        if name in REFUSED[backend]:
            return
        raise AssertionError(f"{backend} refuses {name}") from error
    assert name not in REFUSED[backend], f"{backend} now reads {name}: correct this table and the backend's docstring"
    if name in SILENTLY_WRONG[backend]:
        assert wrong > 0, f"{backend} is now right on {name}: correct this table and the backend's docstring"
    else:
        assert wrong == 0


def test_a_wrong_frame_would_be_seen() -> None:
    numbers = [0, 1, 2, 59, 511, 512, 1023]
    for height, width in ((96, 160), (224, 373), (97, 163), (45, 90)):
        assert [read_number(number_image(n, height, width)) for n in numbers] == numbers


def test_the_cover_picture_is_the_first_video_stream(made: Callable) -> None:
    """Guards its case above: a reader that takes the first video stream would take the picture."""
    path, _ = made("cover_picture_first")
    with av.open(str(path)) as container:
        assert container.streams.video[0].disposition & Disposition.attached_pic
        assert len(container.streams.video) == 2


def test_size_change_gives_every_frame_at_the_size_of_the_first(made: Callable) -> None:
    path, plain = made("size_change")
    assert plain[0].shape != plain[-1].shape
    video = read_frames(path, range(0, 60, 5))
    assert video.frames.shape == (12, *plain[0].shape)
    assert [read_number(image) for image in video.frames] == list(range(0, 60, 5))
