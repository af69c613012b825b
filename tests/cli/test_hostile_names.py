"""File names that no terminal and no UTF-8 can hold: they are files like others, in every row and report."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Finished

Run = Callable[..., Finished]
TINY = ("--model", "videomae_tiny", "--num-segments", 1, "--num-crops", 1)
NAMES = (os.fsdecode(b"caf\xe9.mp4"), "new\nline.mp4", "two\u2028lines.mp4", "[red]x[bold].mp4", "\x1b[2J.mp4")


@pytest.fixture
def folder(tmp_path: Path, clip: Path) -> Path:
    """A good clip under each name, and one bad file."""
    (tmp_path / "clips").mkdir()
    for name in NAMES:
        try:
            shutil.copy(clip, tmp_path / "clips" / name)
        except OSError:
            pytest.skip(f"this file system takes no name {name!r}")
    (tmp_path / "clips" / os.fsdecode(b"bad\xe9.mp4")).write_bytes(b"")
    return tmp_path / "clips"


def test_predict_writes_a_row_for_each_and_goes_on_from_them(vidprune: Run, folder: Path, tmp_path: Path) -> None:
    arguments = ("predict", folder, *TINY, "--method", "dense", "--json", "--out", tmp_path / "rows.jsonl")
    done = vidprune(*arguments)
    assert done.code == 2
    assert "internal error" not in done.err
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").split("\n")[:-1]]
    assert {Path(row["path"]).name for row in rows if "top" in row} == set(NAMES)
    assert sum("error" in row for row in rows) == 1
    again = vidprune(*arguments)
    assert again.code == 2
    assert "is no row of this command" not in again.err


def test_predict_shows_each_on_the_screen(vidprune: Run, folder: Path) -> None:
    done = vidprune("predict", folder, *TINY, "--method", "dense", "--top", 1)
    assert done.code == 2
    assert "1 of 6 files failed; the others are complete" in done.err
    assert r"caf\udce9.mp4" in done.out


def test_evaluate_stores_and_reports_each(vidprune: Run, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done = vidprune("evaluate", folder, "--out", out, *TINY, "--method", "dense", "--workers", 0, "--json")
    assert done.code == 2
    assert "internal error" not in done.err
    assert json.loads(done.out)["num_failed"] == 1
    assert r"caf\udce9" in (out / "predictions.csv").read_text(encoding="utf-8")
    assert vidprune("report", out).code == 0
    assert vidprune("validate", folder).code == 0
