"""What evaluations show on the screen, and where they stop before any time is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Finished

Run = Callable[..., Finished]
QUICK = ("--model", "demo", "--method", "uniform", "--num-segments", 1, "--num-crops", 1, "--workers", 0)


@pytest.fixture
def short_list(tmp_path: Path) -> Path:
    """Two of the shipped clips, then one that is not there."""
    from vidprune.config import demo_file

    clips = sorted(demo_file("clips").glob("*.mp4"))[:2]
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{clip} {label}\n" for label, clip in enumerate(clips)) + f"{tmp_path / 'gone.mp4'} 2\n")
    return path


def test_rows_that_repeat_others_are_left_out(vidprune: Run, short_list: Path, tmp_path: Path) -> None:
    whole = vidprune("evaluate", short_list, *QUICK, "--limit", 2, "--out", tmp_path / "a")
    assert whole.code == 0, whole.err
    assert "top-1 of decoded" in whole.out
    assert "of listed, failures wrong" not in whole.out, "the same figures, as nothing failed"
    assert "(videomae_tiny.safetensors)" in whole.out.replace("\n", "")
    part = vidprune("evaluate", short_list, *QUICK, "--out", tmp_path / "b")
    assert part.code == 2
    assert "of listed, failures wrong" in part.out
    assert "--retry-failed tries them again" in part.err


@pytest.mark.parametrize(("number", "is_refused"), [(19, False), (20, True)])
def test_a_wrong_root_is_said_before_anything_runs(
    vidprune: Run, tmp_path: Path, number: int, is_refused: bool
) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("".join(f"clip{number}.mp4 0\n" for number in range(number)))
    out = tmp_path / "run"
    done = vidprune("evaluate", listed, *QUICK, "--out", out)
    assert done.code == 2
    assert ("none of the first 20 files" in done.err and "is --root right?" in done.err) == is_refused
    assert out.exists() != is_refused


def test_what_an_evaluation_lacks_is_named_with_its_flag(vidprune: Run) -> None:
    done = vidprune("evaluate", *QUICK)
    assert done.code == 2
    assert "needs a list or folder of videos (MANIFEST) and a folder for its results (--out FOLDER)" in done.err


def test_names_that_are_too_long_are_missing_files(vidprune: Run, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text("".join(f"{number:0300d}.mp4 0\n" for number in range(20)))
    done = vidprune("evaluate", listed, *QUICK, "--out", tmp_path / "run")
    assert done.code == 2
    assert "none of the first 20 files" in done.err
