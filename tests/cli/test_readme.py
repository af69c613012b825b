"""README's examples run as printed: its `bash` and `python` blocks; `sh` blocks install, or need the reader's files."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"^```(bash|python)\n(.*?)^```", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if language == "bash" for line in block.replace("\\\n", "").splitlines()]
PROGRAMS = [block for language, block in BLOCKS if language == "python"]


def run(arguments: list[str], folder: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(arguments, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run, in their order: one may read what another wrote."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "configs").symlink_to(REPOSITORY / "configs")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_runs_as_printed(command: str, folder: Path) -> None:
    words = command.split("#")[0].split()
    assert words[0] == "vidprune"
    run([sys.executable, "-m", *words], folder)


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_runs_as_printed(program: str, tmp_path: Path) -> None:
    assert "ClassScore" in run([sys.executable, "-c", program], tmp_path)


def test_there_are_examples() -> None:
    assert len(COMMANDS) >= 5
    assert len(PROGRAMS) >= 1


def test_the_cost_table_is_what_flops_prints() -> None:
    rows = re.findall(
        r"^\| (VideoMAE-[BL]) \| (\.\d+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", README, re.MULTILINE
    )
    assert len(rows) == 4
    import torch

    import vidprune as vp

    for name, keep_ratio, tokens, vit, native, released in rows:
        with torch.device("meta"):
            host = vp.create_model({"VideoMAE-B": "videomae_base", "VideoMAE-L": "videomae_large"}[name])
        for treatment, total in (("native", native), ("release", released)):
            method = vp.PaPr(float(keep_ratio), input_treatment=treatment)
            report = vp.flops(vp.prune(host, method, self_check=False))
            assert str(report.token_counts[0]) == tokens
            assert f"{report.vit_gmacs:.1f}" == vit
            assert f"{report.total_gmacs:.1f}" == total


def test_the_table_of_times_is_what_was_measured() -> None:
    def figures(name: str) -> dict[str, dict[str, str]]:
        lines = (REPOSITORY / "results" / f"{name}.csv").read_text().splitlines()
        return {row["name"]: row for row in csv.DictReader(line for line in lines if not line.startswith("#"))}

    base, large = figures("model_videomae_base_shared"), figures("model_videomae_large")
    papr = "papr keep_ratio={} proposal={}"
    wanted = [
        (base, papr.format(".45", "x3d_s") + " input_treatment=native"),
        (base, papr.format(".45", "x3d_s") + " input_treatment=release"),
        (base, papr.format(".45", "x3d_s") + " input_treatment=release shared_crops=true"),
        (base, papr.format(".45", "codec_motion")),
        (large, papr.format(".3", "x3d_s") + " input_treatment=native"),
        (large, papr.format(".3", "x3d_s") + " input_treatment=release"),
    ]
    rows = re.findall(r"\| ([\d.]+)x \| ([\d.]+)x \| ([\d.]+) % \|$", README, re.MULTILINE)
    assert len(rows) == len(wanted)
    for (faster, fewer, share), (file, name) in zip(rows, wanted, strict=True):
        row, dense = file[name], file["dense"]
        assert f"{float(row['speed_up']):.2f}" == faster, name
        assert f"{float(dense['gmacs']) / float(row['gmacs']):.2f}" == fewer, name
        measured = 100 * float(row["proposal_ms"]) / float(dense["ms_per_view"])
        assert f"{measured:.{len(share.partition('.')[2])}f}" == share, name


def test_the_demo_table_is_what_was_measured() -> None:
    rows = re.findall(r"^\| ([\w ,.=]+?) \| (\d+) \| ([\d.]+) \| (\d+) % \| ([\d.]+) \|$", README, re.MULTILINE)
    with (REPOSITORY / "results" / "demo.csv").open() as file:
        measured = list(csv.DictReader(file))
    assert len(rows) == len(measured) == 7
    for (method, tokens, top1, actor, gmacs), row in zip(rows, measured, strict=True):
        assert method.partition(",")[0].lower().replace(" ", "_") == row["method"]
        assert tokens == row["tokens"]
        assert float(top1) == pytest.approx(float(row["top1"]), abs=0.0501)
        assert float(actor) == pytest.approx(float(row["actor_coverage"]), abs=0.501)
        assert float(gmacs) == pytest.approx(float(row["gmacs_per_view"]), abs=0.000501)
