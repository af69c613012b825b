"""The demo's action set: reproducible, balanced, fair between actors and distractors, and encoded as it was drawn."""

from __future__ import annotations

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.tool_modules import tool

pytest.importorskip("sklearn", reason="scikit-learn holds the digits")
cv2 = pytest.importorskip("cv2")
av = pytest.importorskip("av")

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "vidprune" / "data" / "demo"
KEEP = 58  # int(196 * 0.3)


@pytest.fixture(scope="module")
def tools() -> SimpleNamespace:
    """All names of the renderer's two modules."""
    modules = [tool(name) for name in ("digit_scenes", "render_digits")]
    return SimpleNamespace(**vars(modules[0]) | vars(modules[1]))


def _view(tools: SimpleNamespace, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Eight frames of a validation clip in one of the three crops: grey float [8, 112, 112] and masks alike."""
    start, left = (index * 7) % 33, (0, 19, 38)[index % 3]
    frames, masks = tools.render(tools.make_scene("val", 1, index), range(start, start + 32, 4), 0, left, 112, 112)
    return frames.astype(np.float32).mean(-1), masks.astype(np.float32)


def _tokens(values: np.ndarray) -> np.ndarray:
    """Means over tubelets of (2, 16, 16): [8, 112, 112] -> [196]."""
    return values.reshape(4, 2, 7, 16, 7, 16).mean((1, 3, 5)).ravel()


def test_digit_splits_are_disjoint_and_complete(tools: SimpleNamespace) -> None:
    splits = [set(tools.digit_indices(name).tolist()) for name in tools.SPLITS]
    assert set.union(*splits) == set(range(1797))
    assert sum(map(len, splits)) == 1797


def test_scenes_use_digits_of_their_own_split_alone(tools: SimpleNamespace) -> None:
    sprites, labels = tools.digit_sprites()
    for split in tools.SPLITS:
        own = {sprites[i].tobytes() for i in tools.digit_indices(split)}
        for index in range(30):
            scene = tools.make_scene(split, 5, index)
            assert all(sprite.alpha.tobytes() in own for sprite in scene.sprites)
            actor = scene.sprites[-1].alpha.tobytes()
            images = [i for i in tools.digit_indices(split) if sprites[i].tobytes() == actor]
            assert scene.digit in labels[images]


def test_a_clip_is_a_function_of_seed_split_and_index(tools: SimpleNamespace) -> None:
    first, again = (tools.render(tools.make_scene("heldout", 3, 17), range(0, 64, 9)) for _ in range(2))
    assert np.array_equal(first[0], again[0])
    assert np.array_equal(first[1], again[1])
    for other in (("heldout", 4, 17), ("heldout", 3, 41), ("val", 3, 17)):
        assert not np.array_equal(first[0], tools.render(tools.make_scene(*other), range(0, 64, 9))[0])


def test_a_crop_shows_what_the_whole_frame_shows_there(tools: SimpleNamespace) -> None:
    scene = tools.make_scene("train", 0, 7)
    whole, whole_mask = tools.render(scene, range(0, 64, 13))
    crop, crop_mask = tools.render(scene, range(0, 64, 13), 10, 19, 80, 96)
    # cv2.warpAffine works in 1/32 pixel, so shifted renders may round differently at edges.
    assert np.abs(whole[:, 10:90, 19:115].astype(int) - crop).mean() < 0.5
    assert np.abs(whole_mask[:, 10:90, 19:115].astype(int) - crop_mask).mean() < 0.5


def test_any_run_of_classes_is_balanced(tools: SimpleNamespace) -> None:
    labels = [tools.make_scene("heldout", 0, index).label for index in range(2 * tools.NUM_CLASSES)]
    assert np.bincount(labels).tolist() == [2] * tools.NUM_CLASSES
    assert len(set(tools.CLASS_NAMES)) == tools.NUM_CLASSES == len(tools.DIGITS) * len(tools.MOTIONS)
    scene = tools.make_scene("heldout", 0, 9)
    assert tools.CLASS_NAMES[scene.label] == f"{scene.digit} {scene.motion}"


@pytest.mark.parametrize("index", range(6))
def test_the_mask_is_where_the_actor_changes_the_picture(tools: SimpleNamespace, index: int) -> None:
    """With and without the actor's ink, the frames differ inside the mask, and there alone."""
    from dataclasses import replace

    scene = tools.make_scene("val", 0, index)
    actor = scene.sprites[-1]
    without = replace(scene, sprites=(*scene.sprites[:-1], replace(actor, alpha=np.zeros_like(actor.alpha))))
    frames, masks = tools.render(scene, range(0, 64, 8))
    ground, empty = tools.render(without, range(0, 64, 8))
    changed = np.abs(frames.astype(int) - ground).max(-1)
    assert changed[masks == 0].max() <= 2
    assert np.abs(frames[masks == 255].astype(int) - actor.color).max() <= 2
    assert (changed[masks > 128] > 10).mean() > 0.75
    assert empty.max() == 0


@pytest.mark.parametrize("motion", ["swings", "bobs", "rocks", "pulses"])
def test_each_motion_moves_what_its_name_says(tools: SimpleNamespace, motion: str) -> None:
    """Measured from the masks alone: spread over time of centroid x, centroid y, orientation and area."""
    votes = []
    for digit in range(len(tools.DIGITS)):
        scene = tools.make_scene("train", 2, digit * len(tools.MOTIONS) + tools.MOTIONS.index(motion))
        _, masks = tools.render(scene, range(0, 64, 2))
        ys, xs = np.mgrid[: masks.shape[1], : masks.shape[2]]
        traces = []
        for t, mask in zip(range(0, 64, 2), masks.astype(float), strict=True):
            camera_x, camera_y = scene.camera(t)
            area = mask.sum()
            x, y = (mask * xs).sum() / area, (mask * ys).sum() / area
            xx, yy, xy = (mask * (xs - x) ** 2).sum(), (mask * (ys - y) ** 2).sum(), (mask * (xs - x) * (ys - y)).sum()
            traces.append((x - camera_x, y - camera_y, np.arctan2(2 * xy, xx - yy), area))
        x, y, doubled_angle, area = np.array(traces).T
        turn = np.std(np.unwrap(doubled_angle)) / 2
        # Each in units of what the named motion gives at least: 8 pixels, 8 pixels, 0.65 radians, 30 % in size.
        votes.append(np.argmax([x.std() / 5.6, y.std() / 5.6, turn / 0.46, area.std() / area.mean() / 0.42]))
    assert np.bincount(votes, minlength=4).argmax() == tools.MOTIONS.index(motion)
    assert np.mean(np.array(votes) == tools.MOTIONS.index(motion)) >= 0.8


def test_the_actor_is_inside_all_three_crops(tools: SimpleNamespace) -> None:
    shares = []
    for index in range(24):
        _, masks = tools.render(tools.make_scene("val", 1, index), range(0, 64, 6))
        shares += [masks[:, :, left : left + 112].sum() / masks.sum() for left in (0, 19, 38)]
    assert min(shares) > 0.9


def test_cheap_cues_do_not_find_the_actor(tools: SimpleNamespace) -> None:
    """Share of the actor in the top 30 % tokens by brightness, local variance and frame difference; chance is 0.30."""
    covered: dict[str, list[float]] = {"brightness": [], "variance": [], "frame difference": []}
    for index in range(48):
        grey, masks = _view(tools, index)
        step = np.abs(np.diff(grey, axis=0))
        difference = np.concatenate([step[:1], (step[:-1] + step[1:]) / 2, step[-1:]])
        scores = {
            "brightness": _tokens(grey),
            "variance": _tokens(grey**2) - _tokens(grey) ** 2,
            "frame difference": _tokens(difference),
        }
        actor = _tokens(masks)
        for name, score in scores.items():
            kept = np.argsort(-score, kind="stable")[:KEEP]
            covered[name].append(actor[kept].sum() / actor.sum())
    mean = {name: float(np.mean(values)) for name, values in covered.items()}
    assert mean["brightness"] < 0.8, mean
    assert mean["variance"] < 0.6, mean
    assert mean["frame difference"] < 0.6, mean


def test_files_decode_to_what_was_drawn(tools: SimpleNamespace, tmp_path: Path) -> None:
    tools.write_set(tmp_path, "val", 2, 0, tools.CRF)
    rows = list(csv.DictReader((tmp_path / "labels.csv").open()))
    assert [int(row["label"]) for row in rows] == [0, 1]
    assert (tmp_path / "classes.txt").read_text().splitlines() == list(tools.CLASS_NAMES)
    with np.load(tmp_path / "masks.npz") as stored:
        masks = {name: stored[name] for name in stored.files}
    for index, row in enumerate(rows):
        drawn, opacity = tools.render(tools.make_scene("val", 0, index), range(tools.NUM_FRAMES))
        decoded = _decode(tmp_path / row["file"])
        assert decoded.shape == drawn.shape
        error = ((decoded.astype(float) - drawn) ** 2).mean(axis=(1, 2, 3))
        assert (10 * np.log10(255**2 / error)).min() > 25
        quarter = masks[Path(row["file"]).stem]
        assert quarter.shape == (64, 28, 38)
        assert np.abs(quarter[:, :, :37].astype(float).sum() * 16 / opacity[:, :, :148].sum() - 1) < 0.02


def _decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.fixture(scope="module")
def shipped() -> list[dict[str, str]]:
    if not (DEMO / "clips" / "labels.csv").exists():
        pytest.skip("the demo's clips are not in this checkout")
    return list(csv.DictReader((DEMO / "clips" / "labels.csv").open()))


def test_shipped_clips_are_the_first_of_the_heldout_split(
    tools: SimpleNamespace, shipped: list[dict[str, str]]
) -> None:
    assert np.ptp(np.bincount([int(row["label"]) for row in shipped], minlength=tools.NUM_CLASSES)) == 0
    for index in (0, len(shipped) // 2, len(shipped) - 1):
        drawn, _ = tools.render(tools.make_scene("heldout", 0, index), range(0, 64, 16))
        decoded = _decode(DEMO / "clips" / shipped[index]["file"])[::16]
        assert 10 * np.log10(255**2 / ((decoded.astype(float) - drawn) ** 2).mean()) > 25


def test_the_demo_stays_small(shipped: list[dict[str, str]]) -> None:
    clips = sum(file.stat().st_size for file in (DEMO / "clips").iterdir())
    weights = sum(file.stat().st_size for file in DEMO.glob("*.safetensors"))
    assert clips < 5e6
    assert weights < 8e6
    assert 90 <= len(shipped) <= 120
