"""`vidprune calibrate` as users run it: videos, images, scores of their own, and arguments that are wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Finished
from vidprune.pruners.calibration import load_calibration
from vidprune.types import TokenGrid

Run = Callable[..., Finished]
DEMO = ("--model", "demo", "--num-classes", 2)


@pytest.mark.parametrize("scores", ["rollout", "lrp"])
def test_videos_become_a_file_that_star_takes(vidprune: Run, tmp_path: Path, scores: str) -> None:
    out = tmp_path / "c.npz"
    done = vidprune("calibrate", "demo:0", "demo:1", *DEMO, "--scores", scores, "--out", out, "--json")
    assert done.code == 0
    (row,) = done.rows
    found = load_calibration(out)
    assert (found.host, found.method, found.num_inputs, found.num_classes) == ("demo", scores, 2, 2)
    assert found.inter.shape == (4, TokenGrid(4, 7, 7).num_tokens)
    assert row["similarity"] == pytest.approx(found.similarity.tolist(), abs=1e-6)
    assert (row["out"], row["num_failed"], row["grid"]) == (str(out), 0, [4, 7, 7])
    options = ("--method", "star", "--keep-ratio", 0.6, "--method-option", f"calibration={out}")
    assert vidprune("predict", "demo:0", "--model", "demo", *options).code == 0


def test_a_drawn_subset_is_the_same_every_time(vidprune: Run, tmp_path: Path) -> None:
    files = [tmp_path / "a.npz", tmp_path / "b.npz"]
    for out in files:
        done = vidprune("calibrate", "demo", *DEMO, "--limit", 2, "--batch-size", 2, "--num-segments", 2, "--out", out)
        assert done.code == 0
        assert "scores by rollout from 4 inputs" in done.out
    first, second = (load_calibration(out) for out in files)
    assert np.array_equal(first.inter, second.inter)


def test_images_for_an_image_model(vidprune: Run, tmp_path: Path) -> None:
    from PIL import Image

    (tmp_path / "images").mkdir()
    for seed in range(3):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{seed}.png")
    (tmp_path / "images" / "broken.jpg").write_text("no image")
    out = tmp_path / "c.npz"
    done = vidprune("calibrate", tmp_path / "images", "--model", "timm/test_vit", "--out", out, "--batch-size", 2)
    assert done.code == 2
    assert "cannot read image" in done.err
    assert "broken.jpg" in done.err
    found = load_calibration(out)
    assert (found.num_inputs, found.grid.t) == (3, 1)
    assert found.host == "timm/test_vit"


def test_scores_of_your_own(vidprune: Run, tmp_path: Path) -> None:
    np.save(tmp_path / "mine.npy", np.arange(1, 4 * 196 + 1).reshape(4, 196))
    out = tmp_path / "c.npz"
    done = vidprune("calibrate", "demo:0", "--model", "demo", "--scores", tmp_path / "mine.npy", "--out", out)
    assert done.code == 0
    found = load_calibration(out)
    assert found.method == "given"
    assert found.inter[0, :3].tolist() == [1, 2, 3]


def test_what_is_wrong_is_said_in_one_line(vidprune: Run, tmp_path: Path) -> None:
    out = tmp_path / "c.npz"
    no_scores = vidprune("calibrate", "demo:0", "--model", "demo", "--scores", "lpr", "--out", out)
    assert no_scores.code != 0
    assert "cannot read scores 'lpr'" in no_scores.err
    assert "rollout, lrp or an .npy file" in no_scores.err
    nothing = vidprune("calibrate", tmp_path / "none.mp4", "--model", "demo", "--out", out)
    assert nothing.code != 0
    assert "calibration needs at least one input, got none" in nothing.err
    assert not out.exists()
    (tmp_path / "empty").mkdir()
    empty = vidprune("calibrate", tmp_path / "empty", "--model", "timm/test_vit", "--out", out)
    assert "holds no image" in empty.err
    vidprune("calibrate", "demo:0", *DEMO, "--out", out)
    options = ("--method", "star", "--keep-ratio", 0.6, "--method-option", f"calibration={out}")
    other = vidprune("flops", "--model", "videomae_small", *options)
    assert other.code != 0
    assert "made for demo, 4 blocks and token grid (4, 7, 7); the host has 12 blocks" in other.err
