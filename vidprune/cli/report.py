"""`vidprune report`: the figures of finished runs again, from their stores, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidprune.cli import options as opt

if TYPE_CHECKING:
    from vidprune.evaluation.report import EvaluationReport


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders that `vidprune evaluate --out` or VideoMAE wrote.")],
    as_json: opt.Json = False,
) -> None:
    """Print runs as one table, and write report.md, metrics.json and predictions.csv anew into each run's folder.

    A folder with the files 0.txt, 1.txt, ... of VideoMAE's own evaluation is merged by its rules.
    """
    from vidprune.evaluation.files import write_report

    reports = [write_report(folder) for folder in runs]
    if as_json:
        for one in reports:
            print(json.dumps(one.as_dict(), ensure_ascii=False))
    else:
        print_reports(reports)


def print_reports(reports: Sequence[EvaluationReport]) -> None:
    """One table of all runs, then what each one's denominator is."""
    from rich.markup import escape
    from rich.table import Table

    from vidprune.cli.screen import console
    from vidprune.evaluation.files import accuracy_cells

    screen = console()
    table = Table(title="95 % Wilson intervals in brackets", title_justify="left")
    table.add_column("run", overflow="fold")
    for number in range(1, len(reports) + 1):
        table.add_column(str(number), overflow="fold")
    columns = [_facts(one) for one in reports]
    for row in zip(*columns, strict=True):
        table.add_row(row[0][0], *(escape(value) for _, value in row))
    for average in ("probs", "logits"):
        cells = [
            dict(accuracy_cells(accuracy))
            for one in reports
            for accuracy in one.accuracies
            if accuracy.average == average
        ]
        if len(cells) == len(reports):
            table.add_section()
            table.add_row(f"[bold]views averaged by {average}[/]")
            for what in cells[0]:
                table.add_row(what, *(cell[what] for cell in cells))
    screen.print(table)
    for one in reports:
        state = "" if one.is_complete else "; incomplete: run `vidprune evaluate` again"
        screen.print(f"{one.run}: {one.denominator}{state}", markup=False, soft_wrap=True)


def _facts(report: EvaluationReport) -> list[tuple[str, str]]:
    views = report.views
    options = ", ".join(f"{key} {value}" for key, value in report.method.items() if key in ("keep_ratio", "proposal"))
    return [
        ("folder", report.run),
        ("model", f"{report.model} ({report.weights})"),
        ("method", report.method["name"] + (f", {options}" if options else "")),
        ("tokens", report.tokens),
        ("views, protocol", f"{views['num_segments']}x{views['num_crops']}, {report.protocol}"),
        ("precision, device", f"{report.dtype}, {report.environment['device']}"),
        ("listed / decoded / failed", f"{report.num_listed} / {report.num_decoded} / {report.num_failed}"),
        ("damaged", str(report.num_damaged)),
        ("decode / model, s per video", f"{_seconds(report.decode_s)} / {_seconds(report.model_s)}"),
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
