"""The tables of a comparison, in the form of the papers' tables, as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vidprune.evaluation.agreement import PairedDifference
from vidprune.evaluation.comparison import ComparedRun, Comparison
from vidprune.evaluation.files import markdown_cell
from vidprune.evaluation.metrics import AVERAGES, Share

NOTHING = "-"


@dataclass(frozen=True)
class Cell:
    """`text` is shown; `value` is what rows are sorted by, None where there is nothing to show."""

    text: str
    value: float | str | None


@dataclass(frozen=True)
class Table:
    """Rows of cells under their titles; `note` says what the figures are."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


Column = tuple[str, Callable[[ComparedRun], Cell]]

EMPTY = Cell(NOTHING, None)


def overview_table(comparison: Comparison) -> Table:
    """Every run in one row: cost, speed, accuracy, and how far it is from the dense run."""
    columns: list[Column] = [
        ("run", lambda run: _text(run.name)),
        ("model", lambda run: _text(run.report.model)),
        ("method", lambda run: _text(run.method)),
        *_POINT,
        ("s per view", lambda run: number(run.report.seconds_per_view, ".4f")),
        ("top-1 %", top1_cell),
        *_BESIDE_DENSE,
        ("top-5 %", lambda run: share_cell(None if (found := run.accuracy()) is None else found.top5)),
        ("decoded of listed", _decoded),
    ]
    note = (
        "In brackets: 95 % intervals, over the videos that were decoded. GFLOPs: giga multiply-accumulates per view, "
        "the proposal's included. Agreement: the share of videos with the dense run's first class. KL: of the dense "
        "run's probs from the run's, in nats. Neither needs labels. Vs dense: top-1 less that of the dense run, in "
        "points, on the same videos. Views averaged by probs."
    )
    return _table("All runs", note, columns, comparison.sorted_runs)


def model_table(comparison: Comparison) -> Table:
    """Rows of model, method and keep ratio, after PaPr's table 8 (Mahmud et al., ECCV 2024)."""
    columns: list[Column] = [
        ("model", lambda run: _text(run.report.model)),
        ("method", lambda run: _text(run.method)),
        *_POINT,
        ("top-1 %", top1_cell),
        ("vs dense", _difference),
        ("fewer operations", lambda run: number(_cost(run, "reduction"), ".2f", "x")),
        ("speed-up", lambda run: number(run.speedup, ".2f", "x")),
    ]
    note = (
        "Fewer operations: dense GFLOPs over those of the run, proposal included. "
        "Speed-up: measured seconds per view of the dense run over those of the run."
    )
    return _table("By model and keep ratio", note, columns, comparison.sorted_runs)


def proposal_table(comparison: Comparison) -> Table:
    """Rows of proposal and keep ratio, after PaPr's table 9; of the runs that have a proposal."""
    columns: list[Column] = [
        ("proposal", lambda run: _text(run.proposal or NOTHING)),
        ("model", lambda run: _text(run.report.model)),
        ("method", lambda run: _text(run.method)),
        ("z", lambda run: number(run.keep_ratio, "g")),
        ("proposal GFLOPs", lambda run: number(_cost(run, "proposal_gmacs"), ".3g")),
        ("GFLOPs", lambda run: number(_cost(run, "total_gmacs"), ".4g")),
        ("top-1 %", top1_cell),
        *_BESIDE_DENSE,
    ]
    runs = [run for run in comparison.sorted_runs if run.proposal]
    return _table("By proposal and keep ratio", "", columns, runs)


def tables(comparison: Comparison) -> list[Table]:
    """The tables that have rows."""
    made = (overview_table(comparison), model_table(comparison), proposal_table(comparison))
    return [table for table in made if table.rows]


def table_markdown(table: Table) -> str:
    """One table with its title and its note."""
    lines = [f"## {table.title}", "", _line(table.columns), "|" + "---|" * len(table.columns)]
    lines += [_line([cell.text for cell in row]) for row in table.rows]
    return "\n".join([*lines, "", *([table.note, ""] if table.note else [])])


def comparison_markdown(comparison: Comparison) -> str:
    """All tables, then what each run's denominator is and why one may not be compared."""
    lines = [table_markdown(table) for table in tables(comparison)]
    lines += [f"- {markdown_cell(names)}: {markdown_cell(text)}" for names, text in notes(comparison)]
    return "\n".join(lines) + "\n"


def notes(comparison: Comparison) -> list[tuple[str, str]]:
    """(runs, what holds for them all): their names, or "every run"."""
    by_text: dict[str, list[str]] = {}
    for run in comparison.sorted_runs:
        by_text.setdefault(run_note(run), []).append(run.name)
    if len(by_text) == 1 and len(comparison.runs) > 1:
        return [("every run", text) for text in by_text]
    return [(", ".join(names), text) for text, names in by_text.items()]


def run_note(run: ComparedRun) -> str:
    """Denominator, protocol, precision and device of a run, and its note."""
    report = run.report
    state = "" if report.is_complete else " (incomplete)"
    where = f"protocol {report.protocol}, {report.num_views} views, {report.dtype} on {report.environment['device']}"
    return f"{report.denominator}{state}; {where}" + (f"; {run.note}" if run.note else "")


def comparison_csv(comparison: Comparison) -> str:
    """One line per run with every figure as a bare number: fractions, seconds, GMACs, nats."""
    rows = [_csv_row(run) for run in comparison.sorted_runs]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _csv_row(run: ComparedRun) -> dict[str, Any]:
    report = run.report
    cost = asdict(report.cost) | {"total_gmacs": report.cost.total_gmacs} if report.cost else {}
    gmacs = ("dense_gmacs", "vit_gmacs", "proposal_gmacs", "total_gmacs", "convention")
    row: dict[str, Any] = {"run": run.name, "model": report.model, "weights": report.weights}
    row |= {"method": report.method["name"], "proposal": run.proposal, "options": run.options}
    row |= {"keep_ratio": run.keep_ratio, "num_tokens": report.num_tokens, "num_kept": report.num_kept}
    row |= {"protocol": report.protocol, "num_views": report.num_views}
    row |= {"dtype": report.dtype, "device": report.environment["device"]}
    row |= {key: cost.get(key) for key in gmacs}
    row |= {"seconds_per_view": report.seconds_per_view, "decode_s": report.decode_s, "speedup": run.speedup}
    counts = ("num_listed", "num_labelled", "num_decoded", "num_failed", "num_unfinished")
    row |= {key: getattr(report, key) for key in counts}
    for average in AVERAGES:
        row |= _csv_of_average(run, average)
    return row | {"compared_with": run.dense, "note": run.note}


def _csv_of_average(run: ComparedRun, average: str) -> dict[str, Any]:
    found, beside = run.accuracy(average), run.agreement(average)
    row = _csv_share("top1", found and found.top1) | _csv_share("top5", found and found.top5)
    row |= _csv_share("top1_listed", found and found.top1_listed) | {"mean_class": found and found.mean_class}
    row |= _csv_share("agreement", beside and beside.same) | {"kl": beside and beside.kl}
    row |= _csv_share("top1_difference", beside and beside.top1)
    return {f"{key}_by_{average}": value for key, value in row.items()}


def _csv_share(name: str, value: Any) -> dict[str, Any]:
    ends = (("", "value"), ("_low", "low"), ("_high", "high"))
    return {name + end: None if value is None else getattr(value, key) for end, key in ends}


def number(value: float | None, form: str, unit: str = "") -> Cell:
    """A figure, or nothing."""
    return EMPTY if value is None else Cell(f"{value:{form}}{unit}", float(value))


def share_cell(share: Share | None) -> Cell:
    """ "81.20 (80.65-81.74)", in per cent."""
    if share is None:
        return EMPTY
    return Cell(f"{100 * share.value:.2f} ({100 * share.low:.2f}-{100 * share.high:.2f})", share.value)


def top1_cell(run: ComparedRun) -> Cell:
    found = run.accuracy()
    return share_cell(None if found is None else found.top1)


def _text(text: str) -> Cell:
    return Cell(text, text)


def _cost(run: ComparedRun, name: str) -> float | None:
    return None if run.report.cost is None else float(getattr(run.report.cost, name))


def _keep_ratio(run: ComparedRun) -> Cell:
    return Cell("1", 1.0) if run.is_dense else number(run.keep_ratio, "g")


def _agreement(run: ComparedRun) -> Cell:
    found = run.agreement()
    return share_cell(None if found is None else found.same)


def _kl(run: ComparedRun) -> Cell:
    found = run.agreement()
    return number(None if found is None else found.kl, ".4f")


def _difference(run: ComparedRun) -> Cell:
    found = run.agreement()
    if found is None or found.top1 is None:
        return EMPTY
    return Cell(difference_text(found.top1), found.top1.value)


def difference_text(difference: PairedDifference) -> str:
    """ "-0.35 (-0.80 to +0.10)", in points."""
    low, high = (f"{100 * bound:+.2f}" for bound in (difference.low, difference.high))
    return f"{100 * difference.value:+.2f} ({low} to {high})"


def _decoded(run: ComparedRun) -> Cell:
    return Cell(f"{run.report.num_decoded} of {run.report.num_listed}", run.report.num_decoded)


_POINT: tuple[Column, ...] = (
    ("z", _keep_ratio),
    ("tokens", lambda run: number(run.report.num_kept, ".0f" if run.report.keeps_a_fixed_number else ".1f")),
    ("GFLOPs", lambda run: number(_cost(run, "total_gmacs"), ".4g")),
)
_BESIDE_DENSE: tuple[Column, ...] = (
    ("agreement %", _agreement),
    ("KL", _kl),
    ("vs dense", _difference),
)


def _table(title: str, note: str, columns: Sequence[Column], runs: Sequence[ComparedRun]) -> Table:
    """Columns in which no run has anything are left out."""
    cells = [[make(run) for run in runs] for _, make in columns]
    shown = [index for index, column in enumerate(cells) if any(cell.value is not None for cell in column)]
    rows = tuple(tuple(cells[index][row] for index in shown) for row in range(len(runs)))
    return Table(title, note, tuple(columns[index][0] for index in shown), rows)


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(markdown_cell(text) for text in texts) + " |"
