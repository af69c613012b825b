"""Accuracies against scikit-learn, SciPy and a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vidprune.errors import ConfigError
from vidprune.evaluation.metrics import (
    ClassResult,
    Share,
    accuracy,
    average_views,
    per_class_results,
    top_k,
    wilson_interval,
    worst_classes,
)

RNG = np.random.default_rng(5)
NUM_CLASSES = 9
LABELS = RNG.integers(0, NUM_CLASSES - 1, 300)  # class 8 never occurs
VIEW_LOGITS = RNG.normal(size=(300, 6, NUM_CLASSES)).astype(np.float32) * 3
VIEW_LOGITS[np.arange(300), :, LABELS] += 1.0


def plain_softmax(values: np.ndarray) -> np.ndarray:
    exp = np.exp(values.astype(np.float64))
    return exp / exp.sum()


@pytest.mark.parametrize("average", ["probs", "logits"])
def test_averages_equal_a_plain_loop(average: str) -> None:
    got = average_views(torch.from_numpy(VIEW_LOGITS), average).numpy()
    for video in range(0, 300, 37):
        if average == "probs":
            expected = np.mean([plain_softmax(view) for view in VIEW_LOGITS[video]], axis=0)
        else:
            expected = plain_softmax(VIEW_LOGITS[video].mean(axis=0))
        np.testing.assert_allclose(got[video], expected, rtol=1e-4, atol=1e-7)


def test_the_two_averages_differ() -> None:
    logits = torch.tensor([[8.0, 0.0, 0.0], [0.0, 1.5, 0.0], [0.0, 1.5, 0.0], [0.0, 1.5, 0.0]])
    assert int(average_views(logits, "logits").argmax()) == 0
    assert int(average_views(logits, "probs").argmax()) == 1
    with pytest.raises(ConfigError, match="average must be one of probs, logits"):
        average_views(logits, "score")


def test_accuracies_equal_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    probs = average_views(torch.from_numpy(VIEW_LOGITS)).numpy()
    got = accuracy(top_k(probs, 5), LABELS, num_listed=320)
    classes = np.arange(NUM_CLASSES)
    top1 = metrics.accuracy_score(LABELS, probs.argmax(axis=1), normalize=False)
    top5 = metrics.top_k_accuracy_score(LABELS, probs, k=5, labels=classes, normalize=False)
    assert got.top1 is not None
    assert got.top5 is not None
    assert got.top1_listed is not None
    assert got.top5_listed is not None
    assert (got.top1.num_correct, got.top1.num_total) == (top1, 300)
    assert (got.top5.num_correct, got.top5.num_total) == (top5, 300)
    assert (got.top1_listed.num_correct, got.top1_listed.num_total) == (top1, 320)
    assert (got.top5_listed.num_correct, got.top5_listed.num_total) == (top5, 320)
    assert got.top1.value == pytest.approx(top1 / 300)
    assert got.mean_class == pytest.approx(
        metrics.recall_score(LABELS, probs.argmax(axis=1), average="macro", labels=classes[:-1])
    )
    assert 0.2 < got.top1.value < got.top5.value < 1, "a case in which nothing is trivial"


@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (0, 50), (50, 50), (3, 7), (16073, 19796)])
def test_wilson_equals_scipy(correct: int, total: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.binomtest(correct, total).proportion_ci(method="wilson")
    assert wilson_interval(correct, total) == pytest.approx((expected.low, expected.high), abs=1e-7)
    share = Share.of(correct, total)
    assert share is not None
    assert share.low <= share.value <= share.high


def test_the_ends_of_wilson_s_interval_are_exact_and_impossible_counts_refused() -> None:
    assert {wilson_interval(0, total)[0] for total in range(1, 200)} == {0.0}
    assert {wilson_interval(total, total)[1] for total in range(1, 200)} == {1.0}
    for correct, total in ((3, 2), (-1, 2), (0, 0)):
        with pytest.raises(ConfigError, match=f"got {correct} of {total}"):
            wilson_interval(correct, total)


def test_nothing_decoded_gives_no_figure_but_counts_as_wrong() -> None:
    got = accuracy(np.empty((0, 5), np.int64), np.empty(0, np.int64), num_listed=8)
    assert got.top1 is None
    assert got.mean_class is None
    assert got.top1_listed is not None
    assert (got.top1_listed.num_correct, got.top1_listed.num_total) == (0, 8)


def test_ties_go_to_the_lower_class_and_few_classes_are_allowed() -> None:
    ranked = top_k(np.array([[0.2, 0.4, 0.4], [0.5, 0.0, 0.5]]), 5)
    assert ranked.tolist() == [[1, 2, 0], [0, 2, 1]]
    assert top_k(np.tile([0.1, 0.2], (1, 200)), 5).tolist() == [[1, 3, 5, 7, 9]]
    got = accuracy(ranked, np.array([2, 0]), num_listed=2)
    assert got.top1 is not None
    assert got.top5 is not None
    assert (got.top1.num_correct, got.top5.num_correct) == (1, 2)


def test_worst_classes_and_what_they_are_taken_for() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 2, 3, 3])
    first = np.array([0, 2, 2, 1, 1, 1, 0, 3, 0])
    results = per_class_results(first[:, None], labels)
    assert [(r.label, r.num_videos, r.num_correct) for r in results] == [(0, 4, 1), (1, 2, 2), (2, 1, 0), (3, 2, 1)]
    assert [(r.confused_with, r.num_confused) for r in results] == [(2, 2), (None, 0), (0, 1), (0, 1)]
    assert [r.label for r in worst_classes(results)] == [2, 0, 3]
    assert [r.label for r in worst_classes(results, limit=1)] == [2]
    tied = [ClassResult(label, videos, 0, None, 0) for label, videos in ((2, 3), (1, 3), (3, 9), (0, 2))]
    assert [r.label for r in worst_classes(tied)] == [3, 1, 2, 0], "most videos first, then the lower class"
