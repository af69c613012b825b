"""The codec's motion vectors, from the encoder to the tokens that are kept, on scenes whose motion is known."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch

from tests.evaluations import entries, new_store
from tests.hosts import make_host
from tests.media import write_video
from vidprune.errors import ConfigError, UnknownNameError, VideoDecodeError
from vidprune.evaluation.runner import RunnerSettings, run_entries
from vidprune.evaluation.store import Row
from vidprune.inference import plan_for, predict_video, reader_for
from vidprune.proposals import create_proposal
from vidprune.proposals.codec_motion import fill_gaps, overlap, own_speed
from vidprune.pruners.papr import PaPr
from vidprune.pruning import PrunedViT, prune
from vidprune.types import TokenGrid
from vidprune.video import ViewPlan, read_frames, read_video
from vidprune.video import motion as motion_module
from vidprune.video.backends import pyav
from vidprune.video.motion import _turned, sums_per_cell
from vidprune.video.request import DecodeStats
from vidprune.visualization.of_video import picture_video

PAN, OWN = (2, -1), (-3, 2)  # (right, down) pixels per frame, of the camera's picture and of the square in it
SIZE, SQUARE = (128, 192), 48


def texture(height: int, width: int, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX)


def square_corner(frame: int) -> tuple[int, int]:
    """(x, y) of the square's upper left corner."""
    return 120 + OWN[0] * frame, 8 + OWN[1] * frame


@pytest.fixture(scope="module", params=[0, 2], ids=["no B frames", "B frames"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 frames: a panning texture and a square of another one that moves its own way; key frames at 0 and 16."""
    path = tmp_path_factory.mktemp("scene") / "scene.mp4"
    ground, thing = texture(300, 400, 0), texture(SQUARE, SQUARE, 1)
    options = {"g": "16", "bf": str(request.param), "refs": "1", "crf": "18", "sc_threshold": "0", "b-pyramid": "none"}
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=30, options=options)
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for n in range(32):
            top, left = 80 - PAN[1] * n, 100 - PAN[0] * n
            image = ground[top : top + SIZE[0], left : left + SIZE[1]].copy()
            x, y = square_corner(n)
            image[y : y + SQUARE, x : x + SQUARE] = thing
            out.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        out.mux(stream.encode())
    return path


def test_vectors_are_the_scene_s_motion_in_pixels_per_frame(scene: Path) -> None:
    video, plain = (read_frames(scene, range(0, 32, 3), motion=motion) for motion in (True, False))
    assert np.array_equal(video.frames, plain.frames)
    assert plain.motion is None
    motion = video.motion
    assert motion is not None
    assert motion.dtype == np.float32
    assert motion.shape == (11, 8, 12, 2)
    for row, number in enumerate(video.frame_numbers):
        if number == 0:  # a key frame; the one at 16 is not read
            assert np.isnan(motion[row]).all()
            continue
        x, y = square_corner(number)
        inside = np.zeros((8, 12), bool)
        inside[-(-y // 16) : (y + SQUARE) // 16, -(-x // 16) : (x + SQUARE) // 16] = True
        outside = np.ones((8, 12), bool)
        outside[max(y // 16 - 1, 0) : (y + SQUARE) // 16 + 2, max(x // 16 - 1, 0) : (x + SQUARE) // 16 + 2] = False
        np.testing.assert_allclose(np.nanmedian(motion[row][outside], axis=0), PAN, atol=0.3)
        np.testing.assert_allclose(np.nanmedian(motion[row][inside], axis=0), OWN, atol=0.8)


@pytest.mark.parametrize("compensation", ["median", "affine"])
def test_the_square_scores_highest_under_a_moving_camera(scene: Path, compensation: str) -> None:
    plan = ViewPlan(num_frames=8, frame_stride=2, num_segments=2, num_crops=3, short_side=64, crop_size=64)
    video = read_video(scene, plan, motion=True)
    grid = TokenGrid(4, 8, 8)
    maps = create_proposal("codec_motion", compensation=compensation).view_maps(  # type: ignore[attr-defined]
        video, plan, grid=grid, device=torch.device("cpu"), dtype=torch.float32
    )
    assert maps.shape == (6, 4, 8, 8)
    assert maps.dtype == torch.float32
    still = create_proposal("codec_motion", compensation="none").view_maps(  # type: ignore[attr-defined]
        video, plan, grid=grid, device=torch.device("cpu"), dtype=torch.float32
    )
    found, chance = 0, 0
    for view, (left, numbers) in enumerate(
        (offset[1], frames) for frames in plan.frame_indices(32) for offset in plan.crop_offsets(64, 96)
    ):
        for step in range(4):
            n = numbers[2 * step : 2 * step + 2].mean()
            x, y = (120 + OWN[0] * n) / 2 - left, (8 + OWN[1] * n) / 2  # half size after the resize
            rows, columns = (np.arange(8) * 8 + 4,) * 2
            on = ((rows >= y) & (rows < y + 24))[:, None] & ((columns >= x) & (columns < x + 24))[None]
            if on.sum() < 4:
                continue
            best = maps[view, step].flatten().topk(int(on.sum())).indices.numpy()
            found += on.flatten()[best].mean() > 0.6
            chance += 1
    assert chance >= 10
    assert found >= 0.8 * chance
    assert float(still.median()) > 5 * float(maps.median()), "the camera's motion is taken away"


def test_predict_evaluate_and_pictures_read_vectors(scene: Path, tmp_path: Path) -> None:
    model = prune(make_host("VideoMAE"), PaPr(0.25, proposal="codec_motion"))
    plan = plan_for(model, num_segments=2)
    video = read_video(scene, plan, motion=True)
    grid, like = model.token_grid, torch.zeros(())
    maps = model.proposal.view_maps(video, plan, grid=grid, device=like.device, dtype=like.dtype)  # type: ignore
    expected = maps.flatten(1).topk(model.num_kept(), dim=1).indices.sort(dim=1).values.numpy()
    prediction = predict_video(scene, model, plan)
    assert np.array_equal(prediction.kept_index, expected)
    store = new_store(tmp_path / "run", 1, views={"num_segments": 2}, store="logits")
    rows: list[Row] = []
    run_entries(entries([str(scene)]), model, plan, store, RunnerSettings(workers=1), on_row=rows.append)
    assert rows[0].error is None
    np.testing.assert_allclose(rows[0].view_logits.reshape(-1, 7), prediction.view_logits, atol=1e-5)
    assert picture_video(scene, model, plan, tmp_path).sheet.exists()


def test_what_has_no_vectors_says_so(tmp_path: Path, scene: Path) -> None:
    model = prune(make_host("VideoMAE"), PaPr(0.25, proposal="codec_motion"))
    plan = plan_for(model)
    for use in (reader_for, predict_video):
        with pytest.raises(ConfigError, match="backend pyav alone, got backend 'decord'"):
            use(*([[model], plan] if use is reader_for else [scene, model, plan]), backend="decord")  # type: ignore
    vp9 = write_video(tmp_path / "clip.webm", range(3), codec="libvpx-vp9")
    with pytest.raises(VideoDecodeError, match="that of vp9 does not"):
        predict_video(vp9, model, plan)
    with pytest.raises(ConfigError, match="cannot work on pixels alone"):
        model(torch.zeros(1, 3, 8, 64, 64))
    with pytest.raises(ConfigError, match="read with motion vectors"):
        model.proposal.view_maps(  # type: ignore[union-attr]
            read_video(scene, plan), plan, grid=model.token_grid, device=torch.device("cpu"), dtype=torch.float32
        )
    with pytest.raises(UnknownNameError, match="did you mean 'median'"):
        create_proposal("codec_motion", compensation="medain")
    assert isinstance(model, PrunedViT)


def test_sums_per_cell_against_a_loop() -> None:
    generator = np.random.default_rng(0)
    names = ("source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale")
    vectors = np.zeros(200, dtype=[(name, np.int64) for name in names])
    vectors["source"] = generator.choice([-2, -1, 1], 200)
    vectors["w"], vectors["h"] = generator.choice([8, 16], (2, 200))
    vectors["dst_x"], vectors["dst_y"] = generator.integers(0, 80, 200), generator.integers(0, 48, 200)
    vectors["motion_x"], vectors["motion_y"] = generator.integers(-50, 50, (2, 200))
    vectors["motion_scale"] = generator.choice([2, 4], 200)
    frame = generator.integers(0, 3, 200)
    expected = np.zeros((3, 2, 3, 5, 3))
    for n, v in zip(frame, vectors, strict=True):
        area = v["w"] * v["h"]
        terms = (v["motion_x"] / v["motion_scale"] * area, v["motion_y"] / v["motion_scale"] * area, area)
        expected[n, int(v["source"] > 0), v["dst_y"] // 16, v["dst_x"] // 16] += terms
    np.testing.assert_allclose(sums_per_cell(vectors, frame, 3, (3, 5)), expected)


def test_a_long_video_is_summed_up_in_parts(scene: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_frames(scene, range(32), motion=True).motion
    monkeypatch.setattr(motion_module, "_MAX_HELD", 150 * 40)  # bytes: a frame or two
    np.testing.assert_array_equal(read_frames(scene, range(32), motion=True).motion, whole)


def test_overlap_against_counting_pixels() -> None:
    # 40 source pixels are 2.5 cells; shown at four times their size; a crop of 96 from 32 on, in 3 tokens.
    pixel_cell = np.repeat([0, 1, 2], [64, 64, 32])
    expected = [[(pixel_cell[32 + 32 * j : 64 + 32 * j] == i).mean() for i in range(3)] for j in range(3)]
    np.testing.assert_allclose(overlap(3, 40, 160, 32, 96, 3), expected)


def test_gaps_take_the_nearest_field_and_intra_blocks_stand_still() -> None:
    motion = np.full((5, 1, 3, 2), np.nan)
    motion[1], motion[3] = 1.0, 7.0
    motion[3, 0, 2] = np.nan
    filled = fill_gaps(motion)
    assert filled[:, 0, 0, 0].tolist() == [1, 1, 1, 7, 7]  # the earlier one on a tie
    assert own_speed(filled, "none")[:, 0, 2].tolist() == [np.sqrt(2)] * 3 + [0, 0]
    nothing = np.full((2, 1, 3, 2), np.nan)
    assert own_speed(fill_gaps(nothing), "median").tolist() == np.zeros((2, 1, 3)).tolist()


def test_affine_follows_a_zoom_where_the_median_cannot() -> None:
    y, x = np.mgrid[0:6, 0:8].astype(float)
    zoom = np.stack([0.5 * (x - 3), 0.5 * (y - 2)], axis=-1)[None]
    zoom[0, 1, 1] += 4.0
    left = own_speed(zoom, "affine")[0]
    assert left.argmax() == 1 * 8 + 1
    assert np.median(left) < 1e-6 < np.median(own_speed(zoom, "median"))


def test_a_turned_field_turns_cells_and_vectors() -> None:
    field = np.zeros((1, 2, 3, 2))
    field[0, 0, 2] = (1, 0)  # the upper right cell moves right
    turned = _turned(field, 1)  # counterclockwise: the upper left cell moves up
    assert turned.shape == (1, 3, 2, 2)
    assert turned[0, 0, 0].tolist() == [0, -1]
    assert np.abs(turned).sum() == 1
    assert np.array_equal(_turned(field, 4), field)


def test_an_upright_field_of_a_rotated_file(tmp_path: Path) -> None:
    path = write_video(tmp_path / "turned.mp4", range(12), size=(96, 160), rotation=90)
    video = read_frames(path, range(12), motion=True)
    assert video.frames.shape[1:3] == (160, 96)
    assert video.motion is not None
    assert video.motion.shape == (12, 10, 6, 2)


def test_vectors_are_the_same_where_frames_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "a.mp4", range(12))  # one file: two encodings may differ
    motion = []
    for matched_by in ("pts", "count"):
        stats = DecodeStats()
        motion.append(read_frames(path, range(1, 12, 2), motion=True, stats=stats).motion)
        assert stats.matched_by == matched_by
        monkeypatch.setattr(pyav, "sorted_pts", lambda pts: None)
    assert np.isfinite(motion[0]).any()
    np.testing.assert_array_equal(motion[1], motion[0])
