"""The planes path: what is stored are the file's planes, and the RGB made of them is FFmpeg's up to rounding."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from multiprocessing import Pipe
from pathlib import Path
from threading import Thread

import av
import cv2
import numpy as np
import pytest
import torch

from tests.decoders import made_up_planes
from tests.media import write_video
from vidprune.config import (
    EvaluateConfig,
    ModelConfig,
    RunConfig,
    SweepConfig,
    SweepGrid,
    build_model,
    build_views,
    demo_file,
)
from vidprune.errors import ConfigError
from vidprune.evaluation.identity import differences
from vidprune.evaluation.store import PredictionStore
from vidprune.evaluation.transport import Decoded, receive, send
from vidprune.inference import predict_video
from vidprune.runs import evaluate, sweep
from vidprune.runs.evaluating import manifest_of
from vidprune.runs.header import run_identity
from vidprune.types import VideoFrames
from vidprune.video import ViewPlan, cut_views, read_frames, read_video
from vidprune.video.buffer import FrameBuffer
from vidprune.video.colour import colour_of, from_rgb, planes_of, rgb_frames, split_planes, to_rgb
from vidprune.video.request import FrameRequest
from vidprune.video.views import whole_clips
from vidprune.visualization.of_video import _view_pixels

PLAN = ViewPlan(num_frames=4, num_segments=2, short_side=64, crop_size=64)
MATRICES = {1: "bt709", 2: "bt601", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}  # AVCOL_SPC_*


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("colour") / "clip.mp4", range(40))


def flat_blocks(pix_fmt: str, code: int, full: bool) -> av.VideoFrame:
    """A frame of blocks of 8 x 8 pixels of one random colour each, of those that RGB has."""
    rng = np.random.default_rng(0)
    frame = av.VideoFrame(256, 64, pix_fmt)
    for plane, low, high in zip(frame.planes, (60, 100, 100), (180, 156, 156), strict=True):
        block = plane.height // 8
        values = rng.integers(low, high, (8, 32)).astype(np.uint8).repeat(block, 0).repeat(block, 1)
        rows = np.zeros((plane.height, plane.line_size), dtype=np.uint8)
        rows[:, : plane.width] = values
        plane.update(rows.tobytes())
    frame.colorspace, frame.color_range = code, 2 if full else 1
    return frame


def planes_of_file(path: Path) -> Iterator[list[np.ndarray]]:
    """Y, Cb and Cr of each frame, from the bytes of FFmpeg's own raw layout."""
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            height, width = frame.height, frame.width
            raw = frame.to_ndarray().reshape(-1)  # all of Y, then Cb, then Cr
            luma, chroma = raw[: height * width], raw[height * width :].reshape(2, height // 2, width // 2)
            yield [luma.reshape(height, width), *chroma]


# ---- levels


@pytest.mark.parametrize("code", MATRICES)
@pytest.mark.parametrize("full", [False, True])
def test_levels_are_those_of_ffmpeg(code: int, full: bool) -> None:
    frame = flat_blocks("yuv420p", code, full)
    colour = colour_of(frame)
    assert colour == MATRICES[code] + ("-full" if full else "")
    stored = torch.from_numpy(np.concatenate([plane.reshape(-1) for plane in planes_of(frame)])[None])
    gap = to_rgb(stored, colour, (64, 256))[:, 0].movedim(0, -1).numpy() - frame.to_ndarray(format="rgb24")
    inside = np.arange(8) % 7 != 0  # of a block: FFmpeg's fast conversion repeats chroma, ours blends it at the edges
    gap = gap[np.tile(inside, 8)][:, np.tile(inside, 32)]
    assert np.abs(gap).max() < 1.7, "a wrong matrix or range is off by more than 5 somewhere"
    assert np.abs(gap.mean(axis=(0, 1))).max() < 0.1, "no constant offset is left"


def test_jpeg_formats_are_full_range() -> None:
    assert colour_of(flat_blocks("yuvj420p", 2, False)) == "bt601-full"


@pytest.mark.parametrize("colour", ["bt601", "bt601-full", "bt709", "bt2020-full"])
def test_from_rgb_is_the_inverse(colour: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    planes = np.stack([plane.reshape(-1) for plane in from_rgb(image, colour)], axis=-1)  # as frames of one pixel
    assert planes.dtype == np.uint8
    back = to_rgb(torch.from_numpy(planes), colour, (1, 1)).reshape(3, 16, 24).movedim(0, -1)
    assert (back - torch.from_numpy(image).float()).abs().max() <= 2.5  # chroma is rounded, and B - Y is 2 Cb


def test_rgb_keeps_its_levels_and_other_names_are_refused() -> None:
    frames = torch.randint(256, (2, 4, 6, 3), dtype=torch.uint8)
    levels = to_rgb(frames, "rgb", (4, 6))
    assert levels.dtype == torch.float32
    assert torch.equal(levels, frames.permute(3, 0, 1, 2).float())
    with pytest.raises(ConfigError, match="unknown colour 'bt61' of frames: allowed are rgb, bt601"):
        to_rgb(torch.zeros(1, 36, dtype=torch.uint8), "bt61", (4, 6))


@pytest.mark.parametrize(("size", "target"), [((64, 48), (75, 100)), ((48, 64), (36, 48)), ((48, 64), (48, 64))])
def test_chroma_stays_where_it_is_in_the_picture(size: tuple[int, int], target: tuple[int, int]) -> None:
    """Ramps of Cb across and Cr down the source, by the places of its samples: between two pixels each."""
    down, across = (2 * np.arange(n // 2) + 0.5 for n in size)
    ramps = np.broadcast_arrays(38.75 + 2.5 * across, 38.75 + 2.5 * down[:, None])  # whole levels
    buffer = FrameBuffer(np.arange(1), FrameRequest([0], short_side=min(target)))
    planes = [np.full(size, 128, np.uint8), *(ramp.astype(np.uint8) for ramp in ramps)]
    buffer.put_planes(0, planes, "bt601-full")
    video = buffer.finish(Path("made"), 1, 0, 25.0, "made")
    assert video.size == tuple(sorted(target, reverse=size[0] > size[1]))
    red, _, blue = to_rgb(torch.from_numpy(video.frames), video.colour, video.size)[:, 0].numpy()
    expected = [38.75 + 2.5 * ((np.arange(n) + 0.5) * m / n - 0.5) for n, m in zip(video.size, size, strict=True)]
    found = [(red + 0.5 - 128) / 1.402 + 128, ((blue + 0.5 - 128) / 1.772 + 128).T]
    for levels, ramp in zip(found, expected, strict=True):
        gap = (levels - ramp[:, None])[2:-2]  # the outermost samples are held to the edge
        gap = gap[(ramp[2:-2] > 60) & (ramp[2:-2] < 195)]  # elsewhere B is 0 or 255
        assert np.abs(gap).max() < 1, "levels are rounded once"
        assert abs(gap.mean()) < 0.25, "a fifth of a pixel is 0.3 at least"


# ---- what is stored


def check_stored(video: VideoFrames, expected: list[list[np.ndarray]]) -> None:
    """Each frame's planes as OpenCV resizes them: luma to the frame's size, chroma to half of it, rounded up."""
    height, width = video.size
    half = (-(-height // 2), -(-width // 2))
    assert video.frames.shape == (len(expected), height * width + 2 * half[0] * half[1])
    for row, planes in zip(video.frames, expected, strict=True):
        for stored, plane, size in zip(split_planes(row, height, width), planes, (video.size, half, half), strict=True):
            resized = cv2.resize(plane, size[::-1], interpolation=cv2.INTER_LINEAR)
            np.testing.assert_array_equal(stored, plane if plane.shape == size else resized)


@pytest.mark.parametrize("short_side", [None, 64, 224])
def test_stored_planes_are_the_file_s_own_resized_by_opencv(clip: Path, short_side: int | None) -> None:
    wanted = [0, 7, 8, 39]
    video = read_frames(clip, wanted, short_side=short_side, colour="yuv")
    plain = read_frames(clip, wanted, short_side=short_side)
    assert (video.colour, plain.colour) == ("bt601", "rgb")
    assert video.size == plain.size == plain.frames.shape[1:3]
    assert video.source_size == plain.source_size == (96, 160)
    check_stored(video, [planes for number, planes in enumerate(planes_of_file(clip)) if number in wanted])
    gap = rgb_frames(video, np.arange(4)).astype(float) - plain.frames
    assert np.abs(gap).mean() < 1.5


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ten_bits.mkv", {"codec": "ffv1", "pix_fmt": "yuv420p10le"}),
        ("full_chroma.mp4", {"pix_fmt": "yuv444p"}),
        ("half_chroma.mp4", {"pix_fmt": "yuv422p"}),
        ("odd.mkv", {"codec": "ffv1", "size": (95, 161)}),
        ("grey.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
        ("interlaced.mp4", {"options": {"x264-params": "interlaced=1", "flags": "+ildct+ilme"}}),
    ],
)
def test_other_formats_come_as_rgb(tmp_path: Path, name: str, options: dict) -> None:
    path = write_video(tmp_path / name, range(12), **options)
    video = read_frames(path, range(0, 12, 3), short_side=64, colour="yuv")
    assert video.colour == "rgb"
    np.testing.assert_array_equal(video.frames, read_frames(path, range(0, 12, 3), short_side=64).frames)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_planes_are_turned_upright(tmp_path: Path, degrees: int) -> None:
    path = write_video(tmp_path / "turned.mp4", range(40), rotation=degrees)
    turned = read_frames(path, [3, 20], colour="yuv", short_side=48)
    planes = list(planes_of_file(path))  # as coded, not turned; of the same file, for two encodings may differ
    assert turned.colour == "bt601"
    upright = [[np.ascontiguousarray(np.rot90(p, degrees // 90)) for p in planes[number]] for number in (3, 20)]
    check_stored(turned, upright)


@pytest.mark.parametrize("order", [("yuv420p", "yuv444p"), ("yuv444p", "yuv420p")])
def test_a_stream_that_changes_its_format_keeps_the_first_one_s_colour(tmp_path: Path, order: tuple[str, str]) -> None:
    parts = [
        write_video(tmp_path / f"{i}.ts", range(30 * i, 30 * i + 30), pix_fmt=pix_fmt)
        for i, pix_fmt in enumerate(order)
    ]
    path = tmp_path / "both.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    video = read_frames(path, range(60), colour="yuv")
    assert video.colour == ("bt601" if order[0] == "yuv420p" else "rgb")
    gap = rgb_frames(video, np.arange(60)).astype(float) - read_frames(path, range(60)).frames
    assert np.abs(gap).mean(axis=(1, 2, 3)).max() < 1.6


def test_a_file_s_own_matrix_is_followed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "hd.mp4", range(6), options={"colorspace": "bt709", "color_range": "pc"})
    video = read_frames(path, [2, 4], colour="yuv")
    assert video.colour == "bt709-full"
    assert np.abs(rgb_frames(video, np.arange(2)).astype(float) - read_frames(path, [2, 4]).frames).mean() < 1.5


def test_wrong_choices_are_one_line(clip: Path) -> None:
    with pytest.raises(ConfigError, match=r"^colour yuv comes from the backend pyav alone, got backend 'decord'"):
        read_frames(clip, [0], colour="yuv", backend="decord")
    with pytest.raises(ConfigError, match=r"^colour must be one of rgb, yuv, got 'yvu'$"):
        RunConfig(colour="yvu")


# ---- what the model sees


def grown(planes: np.ndarray, length: int, axis: int) -> np.ndarray:
    """`planes` at another length of an axis, linear between the centres of samples, the outermost held to the edge."""
    samples = planes.shape[axis]
    at = ((np.arange(length) + 0.5) * samples / length - 0.5).clip(0, samples - 1)
    return np.apply_along_axis(lambda line: np.interp(at, np.arange(samples), line), axis, planes)


@pytest.mark.parametrize("short_side", [64, 65])
def test_views_are_made_of_the_planes_by_the_standard_s_formula(clip: Path, short_side: int) -> None:
    """BT.601, limited range, in float64 and in the usual five coefficients; then FFmpeg's cut-off of 1, 1.4 and 1."""
    plan = dataclasses.replace(PLAN, short_side=short_side)
    video = read_video(clip, plan, colour="yuv")
    height, width = video.size
    y, cb, cr = (plane.astype(np.float64) for plane in split_planes(video.frames, height, width))
    cb, cr = (grown(grown(plane, height, 1), width, 2) - 128 for plane in (cb, cr))
    y = (y - 16) * 1.164384
    rgb = np.stack([y + 1.596027 * cr - 1, y - 0.391762 * cb - 0.812968 * cr - 1.4, y + 2.017232 * cb - 1], axis=-1)
    expected = (rgb.clip(0, 255) / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    views = cut_views(video, plan).numpy()
    rows = np.searchsorted(video.frame_numbers, plan.frame_indices(40))
    offsets = plan.crop_offsets(height, width)
    for view in range(plan.num_views):
        top, left = offsets[view % plan.num_crops]
        part = expected[rows[view // plan.num_crops], top : top + 64, left : left + 64]
        np.testing.assert_allclose(views[view], part.transpose(3, 0, 1, 2), atol=2e-5)
    whole = whole_clips(video, plan).numpy()
    np.testing.assert_allclose(whole[1], expected[rows[1]].transpose(3, 0, 1, 2), atol=2e-5)


def test_predictions_move_little() -> None:
    """Two roundings differ between the paths, not the picture."""
    run = RunConfig(model=ModelConfig("demo"), method={"name": "papr", "keep_ratio": 0.5}, device="cpu")
    model = build_model(run)
    plan = build_views(run, model)
    path = sorted(demo_file("clips").glob("*.mp4"))[1]
    rgb, yuv = (predict_video(path, model, plan, colour=colour) for colour in ("rgb", "yuv"))
    assert 0 < np.abs(rgb.probs - yuv.probs).max() < 0.05


def test_pictures_show_rgb(clip: Path) -> None:
    rgb, yuv = (_view_pixels(read_video(clip, PLAN, colour=colour), PLAN, 1) for colour in ("rgb", "yuv"))
    assert yuv[0].dtype == np.uint8
    assert yuv[1] == rgb[1]
    assert np.abs(rgb[0].astype(float) - yuv[0]).mean() < 1.5


# ---- on the way


def test_planes_arrive_as_they_were_sent() -> None:
    sent = made_up_planes("planes")
    ours, theirs = Pipe()
    thread = Thread(target=send, args=(theirs, Decoded(0, sent, None, 0.1)))
    thread.start()
    got: VideoFrames = receive(ours).video
    thread.join()
    np.testing.assert_array_equal(got.frames, sent.frames)
    assert (got.colour, got.size) == ("bt709", (32, 41))


def test_planes_of_another_size_than_said_are_refused() -> None:
    video = made_up_planes("planes")
    with pytest.raises(ConfigError, match=r"^frames must be uint8 \[F, 1920\], got uint8 \(12, 1984\)$"):
        dataclasses.replace(video, size_of_planes=(32, 40))
    with pytest.raises(ConfigError, match=r"^size_of_planes goes with planes, got \(32, 41\) and colour 'rgb'$"):
        dataclasses.replace(video, colour="rgb")


def test_evaluations_and_sweeps_read_planes_in_their_workers(tmp_path: Path) -> None:
    run = RunConfig(
        model=ModelConfig("demo"),
        method={"name": "random", "keep_ratio": 0.5},
        device="cpu",
        colour="yuv",
        compile=False,
    )
    config = EvaluateConfig(manifest="demo", out=str(tmp_path / "one"), run=run, limit=1, workers=1)
    evaluate(config)
    grid = SweepGrid(models=[run.model], methods=[run.method])
    sweep(SweepConfig(dataclasses.replace(config, out=str(tmp_path / "sweep")), [grid]))
    model = build_model(run)
    path = sorted(demo_file("clips").glob("*.mp4"))[0]
    expected = predict_video(path, model, build_views(run, model), colour="yuv").view_logits
    (point,) = (tmp_path / "sweep" / "points").glob("*random*")
    for folder in (tmp_path / "one", point):
        stored = PredictionStore.open(folder)
        assert stored.header["identity"]["colour"] == "yuv"
        logits = np.array(stored.table()["view_logits"][0].as_py(), dtype=np.float32).reshape(expected.shape)
        np.testing.assert_array_equal(logits, expected)


def test_the_colour_path_is_part_of_what_a_run_is() -> None:
    run = RunConfig(model=ModelConfig("demo"), device="cpu")
    config = EvaluateConfig(manifest="demo", out="unused", limit=2)
    model = build_model(run)
    plan, manifest = build_views(run, model), manifest_of(config, run, 24)
    usual = run_identity(config, run, plan, manifest)
    other = run_identity(config, dataclasses.replace(run, colour="yuv"), plan, manifest)
    assert "colour" not in usual, "runs stored before there was a choice go on"
    assert differences(usual, other) == ['colour: "absent" -> "yuv"', 'planes_version: "absent" -> 2']
