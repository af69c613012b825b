"""`predict --out`: a file that the same command goes on with, and that no other command spoils."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Finished

Run = Callable[..., Finished]
TINY = ("--model", "demo", "--method", "random", "--keep-ratio", 0.5, "--num-segments", 1, "--num-crops", 1)


def paths(file: Path) -> list[str]:
    return [json.loads(line)["path"] for line in file.read_text().splitlines()]


@pytest.fixture
def videos(clip: Path, tmp_path: Path) -> list[Path]:
    files = [tmp_path / f"{name}.mp4" for name in "abc"]
    for file in files:
        file.write_bytes(clip.read_bytes())
    return files


def test_the_same_command_goes_on(vidprune: Run, videos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "new" / "rows.jsonl"  # its folder is made
    assert vidprune("predict", videos[0], *TINY, "--out", out).code == 0
    first = out.read_text()
    done = vidprune("predict", *videos, *TINY, "--out", out, "--device", "cpu", "--json")
    assert done.code == 0
    assert [row["path"] for row in done.rows] == [str(file) for file in videos[1:]]
    assert "going on: 1 files are done, 2 are left" in done.err
    assert out.read_text().startswith(first)
    assert paths(out) == [str(file) for file in videos]
    again = vidprune("predict", *videos, *TINY, "--out", out, "--json")
    assert (again.code, again.out) == (0, "")
    assert paths(out) == [str(file) for file in videos]


def test_what_failed_or_was_cut_short_is_done_again(vidprune: Run, videos: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    missing = tmp_path / "late.mp4"
    assert vidprune("predict", videos[0], missing, videos[1], *TINY, "--out", out).code == 2
    missing.write_bytes(videos[0].read_bytes())
    out.write_text(out.read_text()[:-20])  # killed while the last line was written
    done = vidprune("predict", videos[0], missing, videos[1], *TINY, "--out", out)
    assert done.code == 0
    assert "1 files are done, 2 are left" in done.err
    assert paths(out) == [str(videos[0]), str(missing), str(videos[1])]
    assert not any("error" in json.loads(line) for line in out.read_text().splitlines())


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (("--keep-ratio", 0.3), "keep_ratio: 0.5 -> 0.3"),
        (("--top", 2), "settings that rows do not show"),
        (("--dtype", "bfloat16"), "settings that rows do not show"),
    ],
)
def test_rows_of_another_run_stay(
    vidprune: Run, videos: list[Path], tmp_path: Path, other: tuple[object, ...], message: str
) -> None:
    out = tmp_path / "rows.jsonl"
    vidprune("predict", videos[0], *TINY, "--out", out)
    before = out.read_bytes()
    done = vidprune("predict", *videos, *TINY, *other, "--out", out)
    assert done.code == 2
    assert message in done.err
    assert "Name another file, or remove this one" in done.err
    assert out.read_bytes() == before


def test_a_file_of_something_else_stays(vidprune: Run, videos: list[Path], tmp_path: Path) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("my notes\nmore\n")
    done = vidprune("predict", videos[0], *TINY, "--out", notes)
    assert done.code == 2
    assert "line 1 is no row of this command; name another file" in done.err
    assert notes.read_text() == "my notes\nmore\n"


def test_random_weights_are_warned_of_and_controls_have_none(vidprune: Run, videos: list[Path]) -> None:
    control = ("--method", "papr", "--keep-ratio", 0.5, "--proposal", "centre")
    done = vidprune("predict", videos[0], "--model", "demo", *TINY[6:], *control)
    assert "papr by centre (no weights) · 98 of 196 tokens" in done.out
    assert "random weights" not in done.out + done.err
    done = vidprune("predict", videos[0], "--model", "videomae_tiny", *TINY[6:], "--proposal", "x3d_s", "--json")
    assert "warning: model videomae_tiny has random weights, so results mean nothing; give --checkpoint" in done.err
    assert "warning: proposal x3d_s has random weights, so results mean nothing; give --proposal-checkpoint" in done.err
    assert done.code == 0
