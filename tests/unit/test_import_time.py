"""`import vidprune` and `vidprune --help` stay light: they load no tensor, model or decoder library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
HEAVY = {
    "torch",
    "timm",
    "torchvision",
    "pytorchvideo",
    "transformers",
    "av",
    "decord",
    "torchcodec",
    "cv2",
    "pandas",
    "PIL",
    "sklearn",
}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def loaded_by_import(statement: str) -> set[str]:
    """Top-level names of all modules loaded once `statement` has run in a fresh interpreter."""
    script = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    names = json.loads(python("-c", script).stdout.splitlines()[-1])
    return {name.partition(".")[0] for name in names}


def test_import_vidprune_is_light() -> None:
    loaded = loaded_by_import("import vidprune")
    assert "vidprune" in loaded
    assert loaded & HEAVY == set()


@pytest.mark.parametrize("module", ["vidprune.types", "vidprune.errors", "vidprune.registry", "vidprune.labels"])
def test_light_modules_stay_light(module: str) -> None:
    assert loaded_by_import(f"import {module}") & HEAVY == set()


def test_help_is_light() -> None:
    done = python("-X", "importtime", "-m", "vidprune", "--help")
    assert "predict" in done.stdout
    rows = [line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")]
    loaded = {name.partition(".")[0] for name in rows}
    assert "vidprune" in loaded  # the parsing above did see the modules
    assert loaded & HEAVY == set()
