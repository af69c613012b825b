"""Stores that something happened to: each damage is one clear error, and none is read as if nothing were."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.evaluations import evaluate, new_store
from vidprune.evaluation.files import write_report
from vidprune.evaluation.store import PredictionStore, Row, StoreError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    evaluate(tmp_path / "run", ["v0", "v1", "unreadable"])
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[1]", "holds a list"),
        ("null", "holds a NoneType"),
        ("[" * 100_000, "recursion"),
        ("", "Expecting value"),
        ({"identity": {}}, "identity was changed"),
        ({"num_classes": "7"}, "of the wrong kind: num_classes"),
        ({"num_classes": 8}, "7 names for 8 classes"),
        ({"weights": None}, "it lacks weights"),
    ],
)
def test_a_damaged_header_is_one_clear_error(run: Path, text: str | dict[str, object], line: str) -> None:
    """A mapping changes some of the keys; None takes one away."""
    path = run / "header.json"
    if isinstance(text, dict):
        changed = json.loads(path.read_text()) | text
        text = json.dumps({key: value for key, value in changed.items() if value is not None or key not in text})
    path.write_text(text)
    for use in (PredictionStore.open, write_report, lambda folder: new_store(folder, 3)):
        with pytest.raises(StoreError, match=line) as caught:
            use(run)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)


def test_no_flipped_bit_is_read_as_a_prediction(run: Path) -> None:
    """Flips all over the one part: an error, or the very rows that were written."""
    store = PredictionStore.open(run)
    (part,) = store.parts()
    whole, rows, surroundings = part.read_bytes(), store.table(), store.environments()
    rng, noticed = np.random.default_rng(0), 0
    for place in rng.choice(len(whole), 200, replace=False):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        part.write_bytes(data)
        try:
            assert store.table().equals(rows)
            store.environments()
        except StoreError:
            noticed += 1
    assert noticed > 100
    part.write_bytes(whole)
    assert store.environments() == surroundings


def test_a_part_of_another_kind_is_refused(run: Path) -> None:
    pq.write_table(pa.table({"position": ["a"]}), run / "parts" / "part-0.parquet")
    with pytest.raises(StoreError, match=r"part-0\.parquet: its columns are not those of a store"):
        write_report(run)


def test_names_that_are_no_utf8_are_stored_and_reported(tmp_path: Path) -> None:
    """As the system hands them over: bytes that are no UTF-8 stand as lone surrogates."""
    name = "caf\udce9"
    store = new_store(tmp_path / "run", 2, {"weights": name}, manifest={"source": name})
    store.append([Row(0, name, f"/videos/{name}.mp4", 1, error="it is empty"), Row(1, "b", "/b", 1, error="too")])
    assert write_report(tmp_path / "run").num_failed == 2
    assert PredictionStore.open(tmp_path / "run").header["weights"] == name
    assert r"caf\udce9" in (tmp_path / "run" / "predictions.csv").read_text(encoding="utf-8")
    new_store(tmp_path / "run", 2, manifest={"source": name})  # goes on: the identity is the same


def test_a_report_that_cannot_be_written_leaves_no_scrap(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    write_report(run)
    before = sorted(run.iterdir())
    monkeypatch.setattr("os.replace", full)
    with pytest.raises(StoreError, match="No space left on device"):
        write_report(run)
    assert sorted(run.iterdir()) == before
