"""A comparison as tables, Markdown, CSV and report.md: what each cell says, and which columns are left out."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest

from tests.stored_runs import DENSE, DENSE_LOGITS, LABELS, RUN_LOGITS, cost, stored_run
from vidprune.evaluation.compare import compare, write_comparison
from vidprune.evaluation.comparison import varying_options
from vidprune.evaluation.files import write_report
from vidprune.evaluation.tables import comparison_csv, comparison_markdown, model_table, proposal_table

PAPR = {"name": "papr", "keep_ratio": 0.5, "proposal": "x3d_s"}


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Dense and three points, out of order."""
    points = tmp_path / "points"
    methods = {
        "a": PAPR | {"keep_ratio": 0.4},
        "b": PAPR,
        "c": {"name": "random", "keep_ratio": 0.5},
        "z": DENSE,
    }
    costs = {"a": cost(70.0, 5.0), "b": cost(90.0, 5.0), "c": cost(90.0), "z": cost(180.0)}
    for name, method in methods.items():
        logits = DENSE_LOGITS if name == "z" else RUN_LOGITS
        seconds = 1.2 if name == "z" else 0.4
        stored_run(
            points / name,
            logits,
            labels=LABELS,
            method=method,
            facts={"cost": costs[name]},
            model_s=seconds,
            failed={5},
        )
    return tmp_path


def test_write_comparison_gives_tables_8_and_9(sweep: Path) -> None:
    comparison = write_comparison([sweep], sweep)
    by_model = model_table(comparison)
    rows = [dict(zip(by_model.columns, (cell.text for cell in row), strict=True)) for row in by_model.rows]
    assert [(row["method"], row["z"], row["GFLOPs"]) for row in rows] == [
        ("dense", "1", "180"),
        ("papr, x3d_s", "0.5", "95"),
        ("papr, x3d_s", "0.4", "75"),
        ("random", "0.5", "90"),
    ]
    assert [row["fewer operations"] for row in rows] == ["1.00x", "1.89x", "2.40x", "2.00x"]
    assert [row["speed-up"] for row in rows] == ["-", "3.00x", "3.00x", "3.00x"]
    by_proposal = proposal_table(comparison)
    cells = [dict(zip(by_proposal.columns, (cell.text for cell in row), strict=True)) for row in by_proposal.rows]
    assert [(row["proposal"], row["z"], row["proposal GFLOPs"]) for row in cells] == [
        ("x3d_s", "0.5", "5"),
        ("x3d_s", "0.4", "5"),
    ]
    text = (sweep / "table.md").read_text()
    assert text.count("| papr, x3d_s |") == 6
    assert "every run: 40 videos listed, 39 decoded, 1 failed" in text
    assert (sweep / "report.html").read_text().startswith("<!doctype html>")


def test_the_csv_gives_bare_numbers(sweep: Path) -> None:
    comparison = write_comparison([sweep], sweep)
    rows = list(csv.DictReader(io.StringIO((sweep / "table.csv").read_text())))
    assert [row["run"] for row in rows] == ["z", "b", "a", "c"]
    assert float(rows[1]["total_gmacs"]) == 95
    assert float(rows[1]["seconds_per_view"]) == pytest.approx(0.4 / 6)
    found = comparison.sorted_runs[1].agreement("logits")
    assert found is not None
    assert float(rows[1]["agreement_by_logits"]) == found.same.value
    assert float(rows[1]["kl_by_logits"]) == found.kl
    assert rows[0]["agreement_by_logits"] == ""
    assert rows[1]["compared_with"] == "z"


def test_columns_without_a_figure_are_left_out(tmp_path: Path) -> None:
    nothing = [None] * len(LABELS)
    dense = stored_run(tmp_path / "dense", DENSE_LOGITS, labels=nothing, method=DENSE)
    run = stored_run(tmp_path / "run", RUN_LOGITS, labels=nothing)  # written before costs were recorded
    comparison = compare([dense, run])
    columns = comparison_markdown(comparison).splitlines()[2]
    assert "agreement %" in columns
    assert "KL" in columns
    for absent in ("top-1", "GFLOPs", "vs dense"):
        assert absent not in columns
    assert "top1_by_probs" in comparison_csv(comparison)


def test_views_that_keep_their_own_numbers_are_given_by_their_mean(tmp_path: Path) -> None:
    facts = {"num_kept": None, "cost": None}
    run = stored_run(tmp_path / "run", RUN_LOGITS, labels=LABELS, facts=facts, failed={0, 2})
    report = write_report(run)
    assert report.num_kept == pytest.approx((18 * 4 + 20 * 5) / 38)
    assert "Tokens kept: 4.5 on average of 8. Weights" in (run / "report.md").read_text()
    (row,) = model_table(compare([run])).rows
    assert "4.5" in [cell.text for cell in row]


def test_a_report_says_what_the_run_costs(sweep: Path) -> None:
    write_report(sweep / "points" / "b")
    text = (sweep / "points" / "b" / "report.md").read_text()
    assert "GFLOPs per view: 90, the proposal's 5, dense 180." in text


def test_options_that_differ_are_told_apart() -> None:
    chain = {"name": "papr+tome", "steps": [PAPR, {"name": "tome", "r": 8}]}
    methods = [
        {"name": "tome", "r": 8, "start_block": 0},
        {"name": "tome", "r": 16, "start_block": 0},
        PAPR | {"checkpoint_sha256": "a"},
        PAPR | {"checkpoint_sha256": "b", "keep_ratio": 0.3},
        chain,
        {"name": "papr+tome", "steps": [PAPR, {"name": "tome", "r": 4}]},
    ]
    assert varying_options(methods) == ["r 8", "r 16", "", "", "tome.r 8", "tome.r 4"]
