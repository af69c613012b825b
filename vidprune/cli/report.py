"""`vidprune report`: the figures of finished runs again, and beside each other, from their stores, without a model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vidprune.cli import flag_types as flag
from vidprune.cli import gallery

if TYPE_CHECKING:
    from vidprune.evaluation.comparison import Comparison
    from vidprune.evaluation.report import EvaluationReport

MAX_COLUMNS = 3  # runs that fit beside each other on a screen
_TOO_WIDE = ("top-5 %", "decoded of listed")  # the notes below the table give the counts
_POINT = ("model", "method", "z")
_OF_LISTED = ("top-1 of listed, failures wrong", "top-5 of listed, failures wrong")  # the same where all was decoded
_BROKEN = {"agreement %": "agree-\nment %"}  # headers that would be wider than their figures


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Folders that `vidprune evaluate --out` or VideoMAE wrote, or that hold such folders."),
    ],
    html: Annotated[Path | None, typer.Option(help="Write tables, plots and details as one HTML page.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the tables as Markdown.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write every figure as CSV, one line per run.")] = None,
    pictures: Annotated[
        int, typer.Option(min=0, help="Show what is kept of so many videos on the page; loads the model.")
    ] = 0,
    max_loss: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=100,
            help="Name the fastest run that loses at most so many points of top-1 (without labels: % of "
            "the dense run's classes).",
        ),
    ] = None,
    as_json: flag.Json = False,
) -> None:
    """Print runs beside each other, and write report.md, metrics.json and predictions.csv anew into each run's folder.

    Where a dense run of the same model, weights, views and videos is among them, every other run is compared with it:
    the share of videos with the same first class, KL divergence, difference in top-1. The first two need no labels.
    A folder with the files 0.txt, 1.txt, ... of VideoMAE's own evaluation is merged by its rules.
    """
    from vidprune.cli.screen import console
    from vidprune.errors import ConfigError
    from vidprune.evaluation.choice import choose
    from vidprune.evaluation.compare import compare, find_runs
    from vidprune.evaluation.files import write_run_files, write_texts
    from vidprune.evaluation.page import page
    from vidprune.evaluation.tables import comparison_csv, comparison_markdown

    if pictures and html is None:
        raise ConfigError("--pictures needs a page to show them on: add --html page.html")
    comparison = compare(find_runs(runs), write_run_files)
    choices = [] if max_loss is None else choose(comparison, max_loss)
    if max_loss is not None and not choices:
        raise ConfigError("--max-loss needs a dense run of the same videos beside the others; name its folder too")
    if html is not None:
        shown = gallery.pictures(comparison, pictures) if pictures else []
        write_texts(html.parent, {html.name: page(comparison, shown)})
    if markdown is not None:
        write_texts(markdown.parent, {markdown.name: comparison_markdown(comparison)})
    if csv is not None:
        write_texts(csv.parent, {csv.name: comparison_csv(comparison)})
    if as_json:
        for run in comparison.runs:
            chosen = {} if max_loss is None else {"chosen": any(choice.run is run for choice in choices)}
            print(json.dumps(run.as_dict() | chosen, ensure_ascii=False))
    else:
        print_comparison(comparison)
        for choice in choices:
            console().print(choice.text(max_loss or 0.0), markup=False, soft_wrap=True)


def print_comparison(comparison: Comparison) -> None:
    """A column for each of a few runs, a row for each of several, then what each one's denominator is."""
    if len(comparison.runs) <= MAX_COLUMNS:
        print_reports([run.report for run in comparison.runs])
    if len(comparison.runs) > 1:
        _print_rows(comparison)
        _print_notes(comparison)


def print_reports(reports: Sequence[EvaluationReport]) -> None:
    """One table of all runs, then what each one's denominator is."""
    from rich.markup import escape
    from rich.table import Table

    from vidprune.cli.screen import console
    from vidprune.evaluation.files import accuracy_cells

    screen = console()
    table = Table(caption="95 % Wilson intervals in brackets", caption_justify="left")
    table.add_column("run", overflow="fold")
    for one in reports:
        table.add_column(escape(one.run), overflow="fold")
    hidden = () if any(one.num_decoded < one.num_listed for one in reports) else _OF_LISTED
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
                if what not in hidden:
                    table.add_row(what, *(cell[what] for cell in cells))
    screen.print(table)
    for one in reports:
        state = "" if one.is_complete else "; incomplete: run `vidprune evaluate` again"
        screen.print(f"{one.run}: {one.denominator}{state}", markup=False, soft_wrap=True)


def _print_rows(comparison: Comparison) -> None:
    """The comparison's own table without its intervals; what is the same in every row goes into its title."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    from vidprune.cli.screen import console
    from vidprune.evaluation.tables import overview_table

    overview = overview_table(comparison)
    texts = [[cell.text.partition(" (")[0] for cell in cells] for cells in zip(*overview.rows, strict=True)]
    columns = dict(zip(overview.columns, texts, strict=True))
    shared = {name: column[0] for name, column in columns.items() if len(set(column)) == 1 and name not in ("run", "z")}
    names = [name for name in columns if name not in shared and name not in _TOO_WIDE]
    if len(set(zip(*(columns[name] for name in names if name in _POINT), strict=True))) == len(overview.rows):
        names.remove("run")  # its name says no more than its method does
    title = ", ".join(f"{name} {text}" for name, text in shared.items())
    table = Table(title=escape(title), title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    for name in names:
        is_text = name in ("run", "model", "method")
        side: Literal["left", "right"] = "left" if is_text else "right"
        header = _BROKEN.get(name, "\n".join(name.rsplit(" ", 1)))
        longest = max(len(word) for text in columns[name] for word in text.split())  # which is not broken
        width = min(longest, 24) if is_text else 3
        table.add_column(header, overflow="fold", no_wrap=not is_text, justify=side, min_width=width)
    for row in zip(*(columns[name] for name in names), strict=True):
        table.add_row(*map(escape, row))
    console().print(table)
    console().print("Intervals, and what the columns mean: --markdown FILE, --html FILE or --csv FILE", style="dim")


def _print_notes(comparison: Comparison) -> None:
    from vidprune.cli.screen import console
    from vidprune.evaluation.tables import notes

    several = len(comparison.runs) > MAX_COLUMNS
    shown = notes(comparison) if several else [(run.name, run.note) for run in comparison.runs if run.note]
    for names, note in shown:
        console().print(f"{names}: {note}", markup=False, soft_wrap=True)


def _facts(report: EvaluationReport) -> list[tuple[str, str]]:
    views = report.views
    options = ", ".join(f"{key} {value}" for key, value in report.method.items() if key in ("keep_ratio", "proposal"))
    return [
        ("model", f"{report.model} ({Path(report.weights).name})"),
        ("method", report.method["name"] + (f", {options}" if options else "")),
        ("tokens", report.tokens),
        ("GFLOPs per view", "not recorded" if report.cost is None else f"{report.cost.total_gmacs:.4g}"),
        ("views, protocol", f"{views['num_segments']}x{views['num_crops']}, {report.protocol}"),
        ("precision, device", f"{report.dtype}, {report.environment['device']}"),
        ("listed / decoded / failed", f"{report.num_listed} / {report.num_decoded} / {report.num_failed}"),
        ("damaged", str(report.num_damaged)),
        ("decode / model, s per video", f"{_seconds(report.decode_s)} / {_seconds(report.model_s)}"),
    ]


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
