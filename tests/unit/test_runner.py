"""The evaluation loop: every video gets its row, whatever its file, its decoder or the device does."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import subprocess
import sys
import threading
import time
from multiprocessing import Pipe
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.decoders import PLAN, made_up
from tests.evaluations import NUM_CLASSES, entries, evaluate, new_store, tiny_model
from vidprune.errors import ConfigError, MissingDependencyError
from vidprune.evaluation.decoding import DecodeWorkerError, decode_all
from vidprune.evaluation.files import write_report
from vidprune.evaluation.report import read_report
from vidprune.evaluation.runner import RunnerSettings, run_entries
from vidprune.evaluation.transport import Decoded, receive, send
from vidprune.inference import predict_views
from vidprune.pruning import PrunedViT
from vidprune.types import VideoFrames

TIMES = ["decode_s", "model_s"]
NAMES = [f"v{i}" for i in range(12)]


class SmallDevice(PrunedViT):
    """A pruned model whose device holds `limit` views at most."""

    limit = 4
    sizes: list[int]

    @classmethod
    def of(cls, model: PrunedViT, limit: int) -> SmallDevice:
        small = cls(model.host, model.methods).eval()
        small.limit, small.sizes = limit, []
        return small

    def forward_with_trace(self, pixels: Tensor, proposal_map: Tensor | None = None):  # type: ignore[no-untyped-def]
        self.sizes.append(len(pixels))
        if len(pixels) > self.limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward_with_trace(pixels, proposal_map)


def test_rows_hold_what_the_main_path_predicts(tmp_path: Path) -> None:
    table = evaluate(tmp_path, NAMES).table()
    model = tiny_model()
    for position, name in enumerate(NAMES):
        (expected,) = predict_views([made_up(name)], model, PLAN)
        stored = np.array(table["view_logits"][position].as_py(), dtype=np.float32).reshape(PLAN.num_views, NUM_CLASSES)
        np.testing.assert_array_equal(stored, expected.logits.numpy())
    assert table["video_id"].to_pylist() == NAMES
    assert table["label"].to_pylist() == [i % NUM_CLASSES for i in range(12)]
    assert table["num_kept"].to_pylist() == [4] * 12
    assert table["num_errors"].to_pylist() == [len(name) % 3 for name in NAMES]


def test_worker_processes_and_shared_batches_give_the_same_predictions(tmp_path: Path) -> None:
    alone = evaluate(tmp_path / "alone", NAMES).table()
    workers = evaluate(tmp_path / "workers", NAMES, workers=2).table()
    assert workers.drop_columns(TIMES).equals(alone.drop_columns(TIMES))
    for views_per_batch in (1, 4, 20):  # parts of a video, and three videos at a time
        shared = evaluate(tmp_path / f"{views_per_batch}", NAMES, views_per_batch=views_per_batch).table()
        others = [*TIMES, "view_logits"]
        assert shared.drop_columns(others).equals(alone.drop_columns(others))
        np.testing.assert_allclose(
            np.array(shared["view_logits"].to_pylist()), np.array(alone["view_logits"].to_pylist()), atol=1e-5
        )


def test_views_of_several_videos_share_batches(tmp_path: Path) -> None:
    model = SmallDevice.of(tiny_model(), limit=100)  # type: ignore[arg-type]
    evaluate(tmp_path, NAMES, model=model, views_per_batch=20)
    assert model.sizes == [18, 18, 18, 18], "three videos of six views fit into twenty; no batch is larger"


def test_hanging_dying_and_failing_decoders_are_rows(tmp_path: Path) -> None:
    names = ["v0", "hangs", "killed", "v1", "exits", "unreadable", "bug", "v2", "killed", "v3"]
    store = evaluate(tmp_path, names, workers=2, timeout_s=3)
    table = store.table()
    errors = dict(zip(range(10), table["error"].to_pylist(), strict=True))
    assert {i for i, error in errors.items() if error is None} == {0, 3, 7, 9}
    assert errors[1] == "cannot decode 'hangs': gave up after 3 s"
    assert errors[2] == errors[8] == "cannot decode 'killed': the decoder died (SIGKILL)"
    assert errors[4] == "cannot decode 'exits': the decoder died (exit status 7)"
    assert errors[5] == "cannot decode 'unreadable': nothing in it"
    assert errors[6] == "cannot decode 'bug': ZeroDivisionError: in the decoder"
    assert table["view_logits"].is_null().to_pylist() == [error is not None for error in errors.values()]
    report = read_report(tmp_path)
    assert report.denominator == "10 videos listed, 4 decoded, 6 failed"
    assert dict(report.failure_kinds())["the decoder died (SIGKILL)"] == 2


def test_workers_end_with_the_run() -> None:
    results = decode_all(made_up, ((i, f"v{i}") for i in range(1000)), workers=2, timeout_s=60)
    next(results)
    assert len(living_children(os.getpid())) == 2
    results.close()
    assert not any(thread.name == "decode-dispatcher" for thread in threading.enumerate())
    assert living_children(os.getpid()) == []


def test_decoding_ahead_is_bounded() -> None:
    handed_out = []

    def jobs():  # type: ignore[no-untyped-def]
        for i in range(500):
            handed_out.append(i)
            yield i, f"v{i}"

    results = decode_all(made_up, jobs(), workers=1, timeout_s=60, ahead=3)
    next(results)
    before = -1
    while before != len(handed_out):  # until it stands still
        before = len(handed_out)
        time.sleep(0.5)
    # One taken, three waiting, one in the dispatcher's hands, one in the worker's.
    assert len(handed_out) <= 6
    results.close()


@pytest.mark.parametrize("shared_memory", [True, False])
def test_frames_arrive_as_they_were_sent(monkeypatch: pytest.MonkeyPatch, shared_memory: bool) -> None:
    if not shared_memory:
        monkeypatch.delattr(os, "memfd_create")
    ours, theirs = Pipe()
    sent = Decoded(3, made_up("v3"), None, 0.5)
    thread = threading.Thread(target=send, args=(theirs, sent))
    thread.start()
    got = receive(ours)
    thread.join()
    assert (got.position, got.error, got.seconds) == (3, None, 0.5)
    for field in dataclasses.fields(VideoFrames):
        np.testing.assert_array_equal(getattr(got.video, field.name), getattr(sent.video, field.name))
    got.video.frames[:] = 0  # the model's side may write into them
    theirs.send("something else")
    assert receive(ours) == "something else"
    theirs.close()
    with pytest.raises(EOFError):
        receive(ours)


def test_a_missing_decoder_ends_the_run_at_once() -> None:
    jobs = [(0, "no_decoder"), (1, "v1")]
    with pytest.raises(MissingDependencyError):
        list(decode_all(made_up, jobs, workers=0, timeout_s=60))
    with pytest.raises(DecodeWorkerError, match="the decoder is not installed"):
        list(decode_all(made_up, jobs, workers=1, timeout_s=60))


def test_workers_that_cannot_start_are_one_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "numpy.py").write_text("raise ImportError('numpy is broken here')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with pytest.raises(DecodeWorkerError, match=r"decode workers cannot start: .*numpy is broken here"):
        list(decode_all(made_up, [(0, "v0")], workers=1, timeout_s=60))


@pytest.mark.parametrize("views_per_batch", [None, 24])
def test_batches_out_of_memory_are_halved_and_the_run_goes_on(tmp_path: Path, views_per_batch: int | None) -> None:
    model = SmallDevice.of(tiny_model(), limit=2)  # type: ignore[arg-type]
    got = evaluate(tmp_path / "small", NAMES, model=model, views_per_batch=views_per_batch).table()
    want = evaluate(tmp_path / "large", NAMES).table()
    np.testing.assert_allclose(
        np.array(got["view_logits"].to_pylist()), np.array(want["view_logits"].to_pylist()), atol=1e-5
    )
    failures = [size for size in model.sizes if size > 2]
    assert failures in ([6, 3], [24, 12, 6, 3]), "each size fails once, then the smaller one stays"


def test_a_device_too_small_for_one_view_is_an_error_and_keeps_the_rows(tmp_path: Path) -> None:
    model = SmallDevice.of(tiny_model(), limit=0)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="one view alone does not fit"):
        evaluate(tmp_path, ["unreadable", "v0"], model=model)
    assert evaluate(tmp_path, ["unreadable", "v0"]).table()["error"].is_valid().to_pylist() == [True, False]


def test_logits_that_are_not_finite_are_a_failure(tmp_path: Path) -> None:
    model = tiny_model()
    with torch.no_grad():
        model.host.head.bias[3] = float("inf")  # type: ignore[union-attr, operator, index]
    table = evaluate(tmp_path, NAMES[:2], model=model).table()
    assert all("not finite" in error for error in table["error"].to_pylist())


def test_an_interrupted_run_keeps_its_rows_and_goes_on(tmp_path: Path) -> None:
    store, seen = new_store(tmp_path, 12), []

    def interrupt(row: object) -> None:
        seen.append(row)
        if len(seen) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_entries(
            entries(NAMES), tiny_model(), PLAN, store, RunnerSettings(workers=0), decode=made_up, on_row=interrupt
        )
    assert store.table().num_rows == 5
    assert read_report(tmp_path).denominator == "12 videos listed, 5 decoded, 0 failed, 7 not evaluated yet"
    whole = evaluate(tmp_path / "whole", NAMES).table()
    assert evaluate(tmp_path, NAMES).table().drop_columns(TIMES).equals(whole.drop_columns(TIMES))


def test_stored_probs_give_the_same_report(tmp_path: Path) -> None:
    names = [*NAMES, "unreadable"]
    evaluate(tmp_path / "logits", names)
    evaluate(tmp_path / "probs", names, stored="probs")
    by_logits, by_probs = write_report(tmp_path / "logits"), write_report(tmp_path / "probs")
    assert by_probs.accuracies == by_logits.accuracies[:1]
    assert [a.average for a in by_logits.accuracies] == ["probs", "logits"]
    assert by_probs.worst == by_logits.worst


def test_the_report_equals_an_independent_count(tmp_path: Path) -> None:
    names = [f"w{i}" for i in range(40)] + ["unreadable", "bug"]
    table = evaluate(tmp_path, names).table()
    report = write_report(tmp_path)
    correct = {"probs": 0, "logits": 0}
    within = {"probs": 0, "logits": 0}
    for row in table.to_pylist():
        if row["error"] is not None:
            continue
        views = np.array(row["view_logits"], dtype=np.float64).reshape(6, NUM_CLASSES)
        softmax = np.exp(views) / np.exp(views).sum(axis=1, keepdims=True)
        for average, score in (("probs", softmax.mean(axis=0)), ("logits", views.mean(axis=0))):
            rank = int((score > score[row["label"]]).sum())
            correct[average] += rank == 0
            within[average] += rank < 5
    for accuracy in report.accuracies:
        assert accuracy.top1 is not None
        assert accuracy.top5 is not None
        assert accuracy.top1_listed is not None
        assert accuracy.top1.num_correct == correct[accuracy.average]
        assert accuracy.top5.num_correct == within[accuracy.average]
        assert (accuracy.top1.num_total, accuracy.top1_listed.num_total) == (40, 42)
    assert (report.num_listed, report.num_decoded, report.num_failed) == (42, 40, 2)
    assert json.loads((tmp_path / "metrics.json").read_text())["num_decoded"] == 40
    with (tmp_path / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["video_id"] for row in rows] == names
    assert sum(row["correct"] == "1" for row in rows) == correct["probs"]
    assert [row["error"] != "" for row in rows] == [False] * 40 + [True] * 2
    text = (tmp_path / "report.md").read_text()
    assert "42 videos listed, 40 decoded, 2 failed." in text
    assert "nothing in it" in text


def test_a_dead_run_leaves_no_worker(tmp_path: Path) -> None:
    """Workers end when the process that started them is killed, even while their file hangs."""
    script = (
        "from tests.decoders import made_up\n"
        "from vidprune.evaluation.decoding import decode_all\n"
        "for item in decode_all(made_up, [(0, 'v0'), (1, 'hangs')], workers=1, timeout_s=1000):\n"
        "    print('ready', flush=True)\n"
    )
    checkout = Path(__file__).resolve().parents[2]
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=checkout, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    workers = living_children(parent.pid)
    assert len(workers) == 1
    parent.kill()
    parent.wait()
    parent.stdout.close()
    deadline = time.monotonic() + 30
    while workers and time.monotonic() < deadline:
        workers = [pid for pid in workers if process_state(pid)[0] not in ("gone", "Z")]
        time.sleep(0.2)
    assert workers == []


def living_children(parent: int) -> list[int]:
    """Decode workers that `parent` started, by whichever of its threads."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    found = [pid for pid in pids if process_state(pid)[1] == parent and process_state(pid)[0] != "Z"]
    return [pid for pid in found if b"worker_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def process_state(pid: int) -> tuple[str, int]:
    """(state letter or "gone", parent's process id)."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return "gone", 0
    return state, int(parent)


def test_settings_out_of_range_are_refused() -> None:
    for settings, message in (
        ({"workers": -1}, "workers must be at least 0"),
        ({"timeout_s": 0.0}, "timeout_s must be above 0"),
        ({"views_per_batch": 0}, "views_per_batch must be at least 1"),
        ({"stored": "scores"}, "store must be one of logits, probs"),
    ):
        with pytest.raises(ConfigError, match=message):
            RunnerSettings(**settings)  # type: ignore[arg-type]
