"""What `vidprune bench` and `flops` leave behind: tables that explain themselves, files that are written or refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Finished
from vidprune.cli.bench import parse_methods
from vidprune.errors import VidpruneError

Run = Callable[..., Finished]
QUICK = ("--model", "videomae_tiny", "--method", "random keep_ratio=.5", "--rounds", 1)


def test_the_table_says_precision_weights_device_versions_and_what_columns_mean(vidprune: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "speed.csv"
    out.parent.mkdir()
    out.write_text("what stood here before")
    done = vidprune("bench", "model", *QUICK, "--csv", out)
    assert done.code == 0
    lines = " ".join(done.out.split())
    assert lines.startswith("videomae_tiny, float32, random weights: time per view (CPU")
    assert "faster, fewer: than dense" in lines
    assert "torch " in lines
    assert "1.00x" in lines
    text = out.read_text()
    assert "what stood here before" not in text
    assert text.startswith("# vidprune bench model")


def test_a_narrow_terminal_turns_the_table(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from vidprune.cli import bench_table
    from vidprune.profiling.pipeline_speed import PipelineSpeed

    row = PipelineSpeed("dense", 1, 4, 15, 78.9, 8.19, 5.64, 0.69, 12.9, 20.7, 34.4, 0.0, 87.7, 0.031)
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal
    for width, is_turned in (("200", False), ("60", True)):
        monkeypatch.setenv("COLUMNS", width)
        bench_table.show("pipeline", [row], "demo", csv=None, as_json=False, device="cpu")
        lines = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out).splitlines()
        assert any(re.fullmatch(r"\s*waiting\s+3%\s*", line) for line in lines) == is_turned
        assert any("dense" in line and "3%" in line for line in lines) != is_turned
        assert max(map(len, lines)) <= int(width)


def test_nothing_is_measured_for_a_file_that_cannot_be_written(vidprune: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[object] = []
    monkeypatch.setattr("vidprune.profiling.model_speed.measure_models", lambda *a, **k: measured.append(a))
    done = vidprune("bench", "model", *QUICK, "--csv", "/dev/null/speed.csv")
    assert done.code == 2
    assert "cannot write /dev/null/speed.csv" in done.err
    assert measured == []


def test_flops_make_the_folder_of_their_file_and_name_the_proposal(vidprune: Run, tmp_path: Path) -> None:
    out = tmp_path / "new" / "cost.csv"
    done = vidprune("flops", "--model", "demo", "--csv", out)
    assert done.code == 0
    assert "demo, papr by x3d_tiny" in done.out
    assert "x3d_tiny" in out.read_text()


@pytest.mark.parametrize("text", ["papr keep_ratio=.5+tome r=8", "papr keep_ratio=.5 + tome r=8"])
def test_a_chain_needs_no_spaces(text: str) -> None:
    assert parse_methods(text) == [{"name": "papr", "keep_ratio": 0.5}, {"name": "tome", "r": 8}]


def test_a_plus_inside_a_number_parts_nothing() -> None:
    assert parse_methods("papr keep_ratio=5.e-1 mass=1.e+0") == [{"name": "papr", "keep_ratio": 0.5, "mass": 1.0}]


def test_a_method_without_a_name() -> None:
    with pytest.raises(VidpruneError, match="a name and its fields"):
        parse_methods(" ")
