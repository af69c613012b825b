"""The prediction store: what is appended is there, whatever happened to the writer."""

from __future__ import annotations

import json
import os
import resource
import socket
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.evaluations import evaluate, new_store
from vidprune.evaluation.report import read_report
from vidprune.evaluation.store import PredictionStore, Row, StoreError

CHECKOUT = Path(__file__).resolve().parents[2]


def row(position: int, value: float = 0.0, error: str | None = None) -> Row:
    logits = None if error else np.full(14, value, dtype=np.float32)
    return Row(position, f"v{position}", f"/videos/v{position}.mp4", position, view_logits=logits, error=error)


def test_rows_come_back_in_the_order_of_the_manifest(tmp_path: Path) -> None:
    store = new_store(tmp_path / "run", 4)
    store.append([row(3, 3.5), row(0, 0.5)])
    store.append([row(2, error="it is empty")])
    store.append([])
    table = PredictionStore.open(tmp_path / "run").table()
    assert table["position"].to_pylist() == [0, 2, 3]
    assert table["video_id"].to_pylist() == ["v0", "v2", "v3"]
    assert table["view_logits"].to_pylist() == [[0.5] * 14, None, [3.5] * 14]
    assert table["error"].to_pylist() == [None, "it is empty", None]
    assert len(store.parts()) == 2, "nothing to append makes no part"


def test_a_part_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = new_store(tmp_path, 1)
    events: list[tuple[str, int]] = []
    sync, replace = os.fsync, os.replace

    def noted_sync(descriptor: int) -> None:
        facts = os.fstat(descriptor)
        events.append(("sync folder", 0) if stat.S_ISDIR(facts.st_mode) else ("sync file", facts.st_size))
        sync(descriptor)

    def noted_replace(aside: Path, path: Path) -> None:
        events.append(("rename", 0))
        replace(aside, path)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    store.append([row(0)])
    (part,) = store.parts()
    assert events == [("sync file", part.stat().st_size), ("rename", 0), ("sync folder", 0)]


def test_an_empty_store_can_be_read(tmp_path: Path) -> None:
    store = new_store(tmp_path, 4)
    assert store.table().num_rows == 0
    assert store.table(["label"]).column_names == ["position", "label"]


def test_repeated_rows_are_settled_prediction_first_then_the_earliest(tmp_path: Path) -> None:
    store = new_store(tmp_path, 3)
    store.append([row(0, error="too slow"), row(1, 1.0), row(2, error="first reason")])
    store.append([row(0, 2.0), row(1, 9.0), row(2, error="second reason")])
    store.append([row(0, 9.0), row(1, error="late failure")])
    table = store.table()
    assert [values and values[0] for values in table["view_logits"].to_pylist()] == [2.0, 1.0, None]
    assert table["error"].to_pylist() == [None, None, "first reason"]
    assert {position: failed for position, (_, _, failed) in store.chosen_rows().items()} == {
        0: False,
        1: False,
        2: True,
    }


def test_another_identity_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    new_store(tmp_path, 1)
    new_store(tmp_path, 1)
    with pytest.raises(StoreError) as caught:
        new_store(tmp_path, 1, dtype="float16", method={"name": "random", "keep_ratio": 0.3, "seed": 1})
    message = str(caught.value)
    assert 'dtype: "float32" -> "float16"' in message
    assert "method.keep_ratio: 0.5 -> 0.3" in message
    assert 'method.seed: "absent" -> 1' in message
    assert "protocol" not in message
    assert len(message.splitlines()) == 1


def test_parts_remember_the_surroundings_they_were_made_in(tmp_path: Path) -> None:
    store = new_store(tmp_path, 3)
    store.append([row(0)])
    later = PredictionStore(tmp_path, store.header, {**store.header["environment"], "device": "another"})
    later.append([row(1), row(2)])
    assert [(facts["device"], count) for facts, count in store.environments()] == [("cpu", 1), ("another", 2)]
    assert store.table()["position"].to_pylist() == [0, 1, 2]
    assert read_report(tmp_path).other_environments == ('2 rows: device: "cpu" -> "another"',)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is no run: cannot read its header\.json"):
        PredictionStore.open(tmp_path)
    (tmp_path / "header.json").write_text("{")
    with pytest.raises(StoreError, match="damaged"):
        PredictionStore.open(tmp_path)
    (tmp_path / "header.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(StoreError, match="format 99"):
        PredictionStore.open(tmp_path)


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    store = new_store(tmp_path, 1)
    store.append([row(0)])
    (part,) = store.parts()
    part.write_bytes(part.read_bytes()[:-8])
    with pytest.raises(StoreError, match=part.name):
        store.table()


def test_a_full_disk_is_one_clear_error_and_leaves_the_store_readable(tmp_path: Path) -> None:
    store = new_store(tmp_path, 2000)
    store.append([row(0, 1.0)])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # a file may not grow beyond 4 KiB: as on a full disk
    try:
        with pytest.raises(StoreError) as caught:
            store.append([row(i, i / 7) for i in range(1, 2000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "cannot write to" in str(caught.value)
    assert "what was stored before is complete" in str(caught.value)
    assert store.table()["position"].to_pylist() == [0]
    assert [file.name for file in (tmp_path / "parts").iterdir()] == [store.parts()[0].name], (
        "nothing half-written stays"
    )
    store.append([row(1)])
    assert store.table()["position"].to_pylist() == [0, 1]


def test_what_dead_writers_left_aside_is_ignored_and_removed(tmp_path: Path) -> None:
    store = new_store(tmp_path, 2)
    store.append([row(0)])
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    leftover = tmp_path / "parts" / f".part-0.parquet.{host}.{dead.pid}.tmp"
    living = tmp_path / "parts" / f".part-1.parquet.{host}.{os.getpid()}.tmp"
    elsewhere = tmp_path / "parts" / f".part-2.parquet.other-{host}.{dead.pid}.tmp"
    for file in (leftover, living, elsewhere):
        file.write_bytes(b"half a part")
    assert store.table()["position"].to_pylist() == [0]
    new_store(tmp_path, 2)
    assert not leftover.exists()
    assert living.exists()
    assert elsewhere.exists()


def test_twenty_kills_at_random_moments_change_nothing(tmp_path: Path) -> None:
    names = [f"v{i}" for i in range(24)]
    command = [sys.executable, "-m", "tests.evaluations", str(tmp_path / "killed"), "20", "7"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    after_kills = json.loads(done.stdout)
    assert after_kills == sorted(after_kills), "what was stored once stays"
    assert any(0 < rows < len(names) for rows in after_kills), "no kill fell into the run: the test shows nothing"
    whole = evaluate(tmp_path / "whole", names).table()
    killed = PredictionStore.open(tmp_path / "killed")
    times = ["decode_s", "model_s"]
    assert killed.table().drop_columns(times).equals(whole.drop_columns(times))
    assert whole.num_rows == len(names)
    assert sum(len(part) for part in killed.read()) == len(names)
    assert not list((tmp_path / "killed" / "parts").glob(".*"))
