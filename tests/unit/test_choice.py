"""The fastest run that loses no more than is allowed, with and without labels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.evaluations import NUM_CLASSES
from tests.stored_runs import DENSE, cost, stored_run
from vidprune.evaluation.choice import choose, loss_of
from vidprune.evaluation.compare import compare, find_runs
from vidprune.evaluation.comparison import Comparison

CLASSES = np.arange(50) % NUM_CLASSES


def sure(classes: np.ndarray) -> np.ndarray:
    """Logits [n, V, classes] of which every view says the same."""
    return np.repeat(10 * np.eye(NUM_CLASSES, dtype=np.float32)[classes][:, None], 6, axis=1)


def wrong_on(num_videos: int) -> np.ndarray:
    classes = CLASSES.copy()
    classes[:num_videos] = (classes[:num_videos] + 1) % NUM_CLASSES
    return sure(classes)


@pytest.fixture(params=[True, False], ids=["labels", "no labels"])
def runs(request: pytest.FixtureRequest, tmp_path: Path) -> Comparison:
    """Dense is right everywhere; the faster a run, the more of its 50 videos are wrong."""
    labels = [int(c) for c in CLASSES] if request.param else [None] * len(CLASSES)
    stored_run(tmp_path / "dense", sure(CLASSES), labels=labels, method=DENSE, model_s=1.2)
    for wrong, seconds in ((0, 1.0), (2, 0.6), (5, 0.3)):
        method = {"name": "random", "keep_ratio": seconds}
        stored_run(tmp_path / f"wrong{wrong}", wrong_on(wrong), labels=labels, method=method, model_s=seconds)
    return compare(find_runs([tmp_path]))


@pytest.mark.parametrize(
    ("max_loss", "name"), [(0, "wrong0"), (3.99, "wrong0"), (4, "wrong2"), (9.99, "wrong2"), (10, "wrong5")]
)
def test_the_fastest_that_loses_no_more(runs: Comparison, max_loss: float, name: str) -> None:
    (choice,) = choose(runs, max_loss)
    assert choice.dense == "dense"
    assert choice.run is not None
    assert choice.run.name == name
    assert [run.name for run, _ in choice.candidates] == ["wrong0", "wrong2", "wrong5"]


def test_losses_are_percent_with_their_upper_end(runs: Comparison) -> None:
    by_name = {run.name: loss_of(run) for run in runs.runs}
    assert by_name["dense"] is None
    assert [by_name[f"wrong{n}"].value for n in (0, 2, 5)] == pytest.approx([0, 4, 10])
    assert all(by_name[f"wrong{n}"].high > by_name[f"wrong{n}"].value for n in (0, 2, 5))


def test_the_sentence_says_what_is_lost_and_how_surely(runs: Comparison) -> None:
    (choice,) = choose(runs, 4)
    loss = choice.candidates[1][1]
    what = "points of top-1" if loss.by_labels else "% of the dense classes"
    expected = (
        f"beside dense: take wrong2 (2.00x as fast); it loses 4.00 {what}, and loses at most {loss.high:.2f} at 95 %"
    )
    assert choice.text(4) == f"{expected}: more videos would make it sure"
    assert choice.text(99) == expected


def test_a_run_that_is_better_gains(tmp_path: Path) -> None:
    labels = [int(c) for c in CLASSES]
    stored_run(tmp_path / "dense", wrong_on(5), labels=labels, method=DENSE)
    stored_run(tmp_path / "better", sure(CLASSES), labels=labels, method={"name": "random", "keep_ratio": 0.5})
    (choice,) = choose(compare(find_runs([tmp_path])), 0)
    assert "take better" in choice.text(0)
    assert "; it gains 10.00 points of top-1, and loses at most -" in choice.text(0)


def test_none_may_do(tmp_path: Path) -> None:
    stored_run(tmp_path / "dense", sure(CLASSES), labels=[None] * 50, method=DENSE)
    stored_run(tmp_path / "wrong", wrong_on(5), labels=[None] * 50, method={"name": "random", "keep_ratio": 0.1})
    (choice,) = choose(compare(find_runs([tmp_path])), 1)
    assert choice.run is None
    assert (
        choice.text(1)
        == "beside dense: none of 1 runs loses at most 1 % of the dense classes; the least is 10.00, by wrong"
    )


def test_where_speeds_cannot_be_compared_operations_decide(tmp_path: Path) -> None:
    stored_run(tmp_path / "dense", sure(CLASSES), labels=[None] * 50, method=DENSE)
    for name, gmacs, dtype in (("dear", 90.0, "float32"), ("cheap", 60.0, "bfloat16")):
        method = {"name": "random", "keep_ratio": gmacs / 180}
        folder = tmp_path / name
        stored_run(folder, sure(CLASSES), labels=[None] * 50, method=method, facts={"cost": cost(gmacs)}, dtype=dtype)
    (choice,) = choose(compare(find_runs([tmp_path])), 0)
    assert choice.run is not None
    assert (choice.run.name, choice.run.speedup) == ("cheap", None)
    assert "as fast" not in choice.text(0)


def test_without_a_dense_run_there_is_nothing_to_choose_by(tmp_path: Path) -> None:
    for name in ("a", "b"):
        stored_run(tmp_path / name, sure(CLASSES), labels=[None] * 50, method={"name": "random", "keep_ratio": 0.5})
    assert choose(compare(find_runs([tmp_path])), 1) == []
