"""The table of fast paths names tests that exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_test_that_holds_a_fast_path_exists() -> None:
    page = CHECKOUT / "docs" / "fast_paths.md"
    if not page.is_file():
        pytest.skip("no docs beside these tests")
    named = re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", page.read_text(encoding="utf-8"))
    assert len(named) > 10
    for file, test in named:
        source = (CHECKOUT / "tests" / "unit" / file).read_text(encoding="utf-8")
        assert not test or f"def {test}(" in source, f"docs/fast_paths.md names {file}::{test}, which is not there"
