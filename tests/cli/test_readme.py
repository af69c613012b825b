"""README's examples run as printed: its `bash` and `python` blocks; `sh` blocks install, or need the reader's files."""

from __future__ import annotations

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
