"""Runs beside the dense run: every figure against a plain loop, with failures, gaps and other lists of videos."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from tests.evaluations import NUM_CLASSES
from tests.stored_runs import DENSE, DENSE_LOGITS, LABELS, RUN_LOGITS, softmax, stored_run
from vidprune.evaluation.agreement import BesideDense, PairedDifference, kl_divergence, make_reference
from vidprune.evaluation.compare import compare, find_runs
from vidprune.evaluation.predictions import read_parts
from vidprune.evaluation.store import PredictionStore, StoreError
from vidprune.evaluation.tables import comparison_markdown

NUM_VIDEOS = len(DENSE_LOGITS)


ON_A_GPU = {"device": "cuda", "vidprune": "0", "packages": {}, "git": None}


def of_videos(logits: np.ndarray, average: str) -> np.ndarray:
    """One distribution for a video's [V, classes]."""
    return softmax(logits).mean(axis=0) if average == "probs" else softmax(logits.mean(axis=0))


@pytest.mark.parametrize("average", ["probs", "logits"])
def test_agreement_equals_a_plain_loop_over_the_videos_that_both_decoded(tmp_path: Path, average: str) -> None:
    dense = stored_run(tmp_path / "dense", DENSE_LOGITS, labels=LABELS, method=DENSE, failed={3, 11}, missing={20})
    run = stored_run(tmp_path / "run", RUN_LOGITS, labels=LABELS, failed={11, 12, 30}, missing={31})
    both = [i for i in range(NUM_VIDEOS) if i not in {3, 11, 12, 20, 30, 31}]
    same = gained = lost = labelled = 0
    kl = []
    for i in both:
        p, q = of_videos(DENSE_LOGITS[i], average), of_videos(RUN_LOGITS[i], average)
        same += p.argmax() == q.argmax()
        kl.append(sum(p[c] * math.log(p[c] / q[c]) for c in range(NUM_CLASSES)))
        if LABELS[i] is not None:
            labelled += 1
            gained += q.argmax() == LABELS[i] != p.argmax()
            lost += p.argmax() == LABELS[i] != q.argmax()
    found = compare([dense, run]).runs[1].agreement(average)
    assert found is not None
    assert (found.same.num_correct, found.same.num_total) == (same, len(both))
    assert found.kl == pytest.approx(np.mean(kl), rel=1e-5)
    assert found.top1 is not None
    assert (found.top1.num_gained, found.top1.num_lost, found.top1.num_total) == (gained, lost, labelled)
    assert found.top1.value == pytest.approx((gained - lost) / labelled)
    assert 0 < same < len(both), "a case in which nothing is trivial"
    assert gained
    assert lost


def test_the_averages_of_a_run_that_keeps_probs_and_one_that_keeps_logits(tmp_path: Path) -> None:
    dense = stored_run(tmp_path / "dense", DENSE_LOGITS, labels=LABELS, method=DENSE)
    runs = [
        stored_run(tmp_path / stored, RUN_LOGITS, labels=LABELS, stored=stored, failed={5})
        for stored in ("logits", "probs")
    ]
    _, full, slim = compare([dense, *runs]).runs
    assert [one.average for one in full.agreements] == ["probs", "logits"]
    (only,) = slim.agreements
    assert only.average == "probs"
    assert only.same == full.agreements[0].same
    assert only.kl == pytest.approx(full.agreements[0].kl, rel=1e-5)


def test_without_labels_agreement_and_kl_remain(tmp_path: Path) -> None:
    nothing = [None] * NUM_VIDEOS
    dense = stored_run(tmp_path / "dense", DENSE_LOGITS, labels=nothing, method=DENSE)
    run = stored_run(tmp_path / "run", RUN_LOGITS, labels=nothing)
    compared = compare([run, dense]).runs[0]
    assert compared.accuracy() is None
    found = compared.agreement()
    assert found is not None
    assert found.top1 is None
    assert found.kl > 0
    assert found.same.low < found.same.value < found.same.high


def test_labels_of_the_run_are_enough(tmp_path: Path) -> None:
    dense = stored_run(tmp_path / "dense", DENSE_LOGITS, labels=[None] * NUM_VIDEOS, method=DENSE)
    run = stored_run(tmp_path / "run", RUN_LOGITS, labels=LABELS)
    found = compare([dense, run]).runs[1].agreement()
    assert found is not None
    assert found.top1 is not None
    assert found.top1.num_total == sum(label is not None for label in LABELS)


def test_a_dense_model_agrees_with_itself(tmp_path: Path) -> None:
    dense = stored_run(tmp_path / "dense", DENSE_LOGITS, labels=LABELS, method=DENSE)
    store = PredictionStore.open(dense)
    parts = list(read_parts(store))
    beside = BesideDense(make_reference(store, parts), store)
    for part in parts:
        beside.add(part)
    assert len(beside.agreements()) == 2
    for found in beside.agreements():
        assert found.same.value == 1
        assert found.kl == 0
        assert found.top1 is not None
        assert found.top1.value == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"names": [f"clip {i}" for i in range(NUM_VIDEOS)]}, "number 1 is 'clip 0' against 'video 0'"),
        ({"labels": [6] * NUM_VIDEOS}, "other labels: 'video 0' has 6 against"),
        ({"view_logits": RUN_LOGITS[:30], "labels": LABELS[:30]}, "30 against 40 listed"),
    ],
)
def test_other_videos_are_refused_in_words(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    dense = stored_run(tmp_path / "dense", DENSE_LOGITS, labels=LABELS, method=DENSE)
    values: dict = {"view_logits": RUN_LOGITS, "labels": LABELS} | change
    run = stored_run(tmp_path / "run", values.pop("view_logits"), **values)
    compared = compare([dense, run]).runs[1]
    assert compared.agreements == ()
    assert compared.dense is None
    assert compared.note.startswith("not compared with dense: ")
    assert reason in compared.note
    assert compared.note in comparison_markdown(compare([dense, run]))


def test_a_run_is_compared_with_the_dense_run_of_its_own_model_views_and_precision(tmp_path: Path) -> None:
    folders = [
        stored_run(tmp_path / name, DENSE_LOGITS, labels=LABELS, method=DENSE, **identity)
        for name, identity in {
            "other model": {"model": {"name": "large"}},
            "other views": {"views": {"protocol": "mmaction", "num_segments": 2, "num_crops": 3}},
            "views of an older protocol": {"protocol_version": 0},
            "half": {"dtype": "float16"},
            "full": {},
        }.items()
    ]
    runs = [
        stored_run(tmp_path / "run", RUN_LOGITS, labels=LABELS),
        stored_run(tmp_path / "run in bfloat16", RUN_LOGITS, labels=LABELS, dtype="bfloat16", model_s=0.3),
        stored_run(tmp_path / "alone", RUN_LOGITS, labels=LABELS, model={"name": "huge"}),
        stored_run(tmp_path / "elsewhere", RUN_LOGITS, labels=LABELS, facts={"environment": ON_A_GPU}),
    ]
    *_, run, other_precision, alone, elsewhere = compare([*folders, *runs]).runs
    assert (run.dense, run.note, run.speedup) == ("full", "", 1.0)
    assert other_precision.dense == "half"
    assert other_precision.note == "half ran in float16, this in bfloat16"
    assert other_precision.speedup is None
    assert alone.dense is None
    assert alone.note == "no dense run of the same model, weights and views"
    assert (elsewhere.dense, elsewhere.speedup) == ("full", None), "seconds of two devices are not compared"


def test_where_the_nearest_dense_run_is_over_other_videos_the_next_one_serves(tmp_path: Path) -> None:
    names = [f"clip {i}" for i in range(NUM_VIDEOS)]
    elsewhere = stored_run(tmp_path / "elsewhere", DENSE_LOGITS, labels=LABELS, method=DENSE, names=names)
    half = stored_run(tmp_path / "half", DENSE_LOGITS, labels=LABELS, method=DENSE, dtype="float16")
    run = stored_run(tmp_path / "run", RUN_LOGITS, labels=LABELS)
    found = compare([run, elsewhere, half]).runs[0]
    alone = compare([run, half]).runs[0]
    assert found.dense == "half"
    assert found.agreements == alone.agreements


def test_nothing_in_common_is_said(tmp_path: Path) -> None:
    halves = set(range(20)), set(range(20, 40))
    dense = stored_run(tmp_path / "dense", DENSE_LOGITS, labels=LABELS, method=DENSE, failed=halves[0])
    run = stored_run(tmp_path / "run", RUN_LOGITS, labels=LABELS, failed=halves[1])
    compared = compare([dense, run]).runs[1]
    assert compared.agreements == ()
    assert compared.note == "no video that dense decoded too"


def test_kl_is_finite_where_a_probability_is_rounded_to_zero() -> None:
    p, q = np.array([[0.5, 0.5, 0.0]], np.float32), np.array([[1.0, 0.0, 0.0]], np.float32)
    assert 40 < kl_divergence(p, q)[0] < 50  # half of ln(1 / 1e-38)
    assert kl_divergence(q, p)[0] == pytest.approx(math.log(2))
    assert kl_divergence(p, p)[0] == 0
    assert kl_divergence(3 * q, 5 * p)[0] == pytest.approx(math.log(2)), "rows are normalised"


def test_the_paired_interval_covers_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    gain, loss, total = 0.04, 0.10, 150
    draws = rng.multinomial(total, [gain, loss, 1 - gain - loss], size=3000)
    intervals = [PairedDifference.of(int(won), int(lost), total) for won, lost, _ in draws]
    covered = np.mean([one is not None and one.low <= gain - loss <= one.high for one in intervals])
    assert 0.935 < covered < 0.975
    paper = PairedDifference.of(4, 9, 50)  # the formula of Agresti and Min, with b = 9, c = 4, n = 50
    margin = 1.959964 * math.sqrt((9 + 4 + 1) - (4 - 9) ** 2 / 52) / 52
    assert paper is not None
    assert (paper.low, paper.high) == pytest.approx((-5 / 52 - margin, -5 / 52 + margin))
    assert PairedDifference.of(0, 0, 0) is None
    edge = PairedDifference.of(3, 0, 3)
    assert edge is not None
    assert edge.value == 1
    assert edge.low < 1 == edge.high


# ---- folders


def test_a_folder_of_runs_stands_for_all_of_them(tmp_path: Path) -> None:
    for name in ("points/z10", "points/z9", "points/dense", "elsewhere"):
        stored_run(tmp_path / name, RUN_LOGITS[:2], labels=[0, 1])
    (tmp_path / "points" / "notes").mkdir()
    assert [path.name for path in find_runs([tmp_path])] == ["dense", "z9", "z10"]
    assert [path.name for path in find_runs([tmp_path / "points", tmp_path / "elsewhere"])][-1] == "elsewhere"
    with pytest.raises(StoreError, match="is no run"):
        find_runs([tmp_path / "points" / "notes"])
    with pytest.raises(StoreError, match="is no run"):
        find_runs([tmp_path / "nowhere"])


def test_names_are_as_short_as_they_can_be(tmp_path: Path) -> None:
    folders = [stored_run(tmp_path / name, RUN_LOGITS[:2], labels=[0, 1]) for name in ("a/run", "b/run", "b/dense")]
    assert [run.name for run in compare(folders).runs] == ["a/run", "b/run", "b/dense"]
    assert [run.name for run in compare([folders[0], folders[2]]).runs] == ["run", "dense"]
    assert [run.name for run in compare([folders[0], folders[0]]).runs] == ["run", "run"]
