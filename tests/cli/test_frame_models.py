"""Image models on clips and image proposals, from the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Finished

Run = Callable[..., Finished]

ONE_VIEW = ("--num-segments", 1, "--device", "cpu")
PAPR = ("--method", "papr", "--proposal", "timm:regnetx_002", "--keep-ratio", 0.5)


def test_predict_with_a_budget_shared_over_the_clip(vidprune: Run, clip: Path) -> None:
    model = ("--model", "frames:2:clip/vit_tiny_patch16_224")
    done = vidprune("predict", clip, *model, *PAPR, *ONE_VIEW, "--num-crops", 1, "--json")
    (row,) = done.rows
    assert done.code == 0
    assert (row["num_tokens"], row["num_kept"]) == (2 * 196, 2 * 98)
    assert row["proposal"] == "timm:regnetx_002"
    assert len(row["top"]) == 5


def test_flops_of_frames_are_those_of_the_image_times_their_number(vidprune: Run) -> None:
    """PaPr's ViT-B at z = .5: 8.715 as fvcore counts, and MobileOne-S0's 0.274."""
    papr = ("--method", "papr", "--proposal", "mobileone_s0", "--keep-ratio", 0.5, "--convention", "fvcore")
    (row,) = vidprune("flops", "--model", "frames:16/vit_base_patch16_224", *papr, "--json").rows
    assert row["vit_gmacs"] / 16 == pytest.approx(8.715, rel=0.002)
    assert row["proposal_gmacs"] / 16 == pytest.approx(0.2741, rel=0.02)
    assert row["dense_gmacs"] / 16 == pytest.approx(17.58, rel=0.002)


def test_visualize_draws_what_each_frame_keeps(vidprune: Run, clip: Path, tmp_path: Path) -> None:
    model = ("--model", "frames:2:clip/vit_tiny_patch16_224", "--method", "centre", "--keep-ratio", 0.3)
    done = vidprune("visualize", clip, *model, *ONE_VIEW, "--out", tmp_path, "--json")
    (row,) = done.rows
    assert done.code == 0
    assert Path(row["sheet"]).stat().st_size > 0
    assert Path(row["overlay"]).stat().st_size > 0


def test_evaluate_from_a_config_file(vidprune: Run, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(f"{clip} 3\n")
    (tmp_path / "run.yaml").write_text(
        "model: {name: 'frames:2/vit_tiny_patch16_224', num_classes: 5}\n"
        "method: {name: papr, keep_ratio: 0.5, proposal: 'gradcam:regnetx_002'}\n"
        "views: {num_segments: 2, num_crops: 1}\n"
        "device: cpu\n"
    )
    arguments = ("--config", tmp_path / "run.yaml", "--out", tmp_path / "out", "--workers", 0, "--json")
    done = vidprune("evaluate", tmp_path / "list.csv", *arguments)
    assert done.code == 0, done.err
    assert done.rows[0]["denominator"] == "1 videos listed, 1 decoded, 0 failed"


def test_list_names_the_families(vidprune: Run) -> None:
    (listing,) = vidprune("list", "--json").rows
    assert "frames/NAME" in listing["models"]
    assert {"mobileone_s0", "timm", "cam", "gradcam", "scorecam", "fc_weighted"} <= set(listing["proposals"])


def test_mistakes_are_one_line(vidprune: Run, clip: Path) -> None:
    done = vidprune("predict", clip, "--model", "timm/vit_tiny_patch16_224", "--method", "dense")
    assert done.code == 2
    assert "frames/vit_base_patch16_224" in done.err
    done = vidprune("predict", clip, "--model", "frames:many/vit_tiny_patch16_224", "--method", "dense")
    assert done.code == 2
    assert "setting 'many' is not known" in done.err
