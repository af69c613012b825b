"""One self-contained HTML page of a comparison: sortable tables, plots, the details of every run; no network."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vidprune import __version__
from vidprune.evaluation.comparison import ComparedRun, Comparison
from vidprune.evaluation.metrics import Share
from vidprune.evaluation.page_details import details
from vidprune.evaluation.page_markup import Html, joined, tag
from vidprune.evaluation.page_plots import Point, Series, plot
from vidprune.evaluation.tables import Cell, Table, tables

_ASSETS = Path(__file__).parents[1] / "data" / "report"
# The page's own style and script, and pictures inside it; nothing is fetched, whatever a file name says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


@dataclass(frozen=True)
class Picture:
    """A PNG to show, and the words under it."""

    caption: str
    png: bytes


def page(comparison: Comparison, pictures: Sequence[Picture] = ()) -> str:
    """The page as HTML text."""
    script = Html((_ASSETS / "page.js").read_text(encoding="utf-8"))
    style = Html((_ASSETS / "page.css").read_text(encoding="utf-8"))
    title = f"vidprune: {_count(len(comparison.runs), 'run')}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", style),
    )
    body = tag(
        "body",
        tag("header", tag("h1", title), _summary(comparison)),
        tag("main", *_plots(comparison), *map(_table, tables(comparison)), _gallery(pictures), _runs(comparison)),
        tag("footer", f"Written by vidprune {__version__} from the stored predictions."),
        tag("script", script),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _summary(comparison: Comparison) -> Html:
    """What the runs share, in words, and what stands between a reader and a comparison."""
    reports = [run.report for run in comparison.runs]
    facts = [
        ("Videos", dict.fromkeys(f"{report.manifest['source']} ({report.denominator})" for report in reports)),
        ("Protocol", dict.fromkeys(f"{report.protocol}, {_count(report.num_views, 'view')}" for report in reports)),
        ("Device", dict.fromkeys(f"{report.environment['device']}, {report.dtype}" for report in reports)),
    ]
    rows = [joined([tag("dt", name), *(tag("dd", text) for text in texts)]) for name, texts in facts]
    doubts = dict.fromkeys(run.note for run in comparison.runs if run.note)
    doubts |= dict.fromkeys(
        f"{run.name} is incomplete: {run.report.denominator}" for run in comparison.runs if not run.report.is_complete
    )
    doubts |= dict.fromkeys(warning for report in reports for warning in report.manifest["warnings"])
    return joined([tag("dl", *rows), *(tag("p", doubt, class_="doubt") for doubt in doubts)])


# ---- plots


def _plots(comparison: Comparison) -> list[Html]:
    """The plots for which runs have both figures; a method has the same colour in all of them."""
    names = list(dict.fromkeys(_series_name(comparison, run) for run in comparison.sorted_runs))
    axes = [
        ("Accuracy against cost", "GFLOPs per view, proposal included", _gflops, "top-1 %", _top1),
        ("Accuracy against measured speed", "seconds per view", _seconds, "top-1 %", _top1),
        ("Agreement with dense against cost", "GFLOPs per view, proposal included", _gflops, "agreement %", _same),
    ]
    made = []
    for title, x_title, x, y_title, y in axes:
        series = [Series(name, number, _points(comparison, name, x, y)) for number, name in enumerate(names)]
        series = [one for one in series if one.points]
        if series:
            made.append(plot(title, x_title, y_title, series))
    if not made:
        return [tag("p", "No run has both a cost or time and an accuracy or agreement, so there is nothing to plot.")]
    return [tag("section", *made, class_="plots")]


def _series_name(comparison: Comparison, run: ComparedRun) -> str:
    """Model and method of runs that are joined: they differ in keep ratio or, where there is none, in options."""
    several = len({one.report.model for one in comparison.runs}) > 1
    parts = [run.report.model if several else None, run.report.method["name"], run.proposal]
    parts += [run.options if run.keep_ratio is not None else None]
    return ", ".join(part for part in parts if part)


def _points(
    comparison: Comparison,
    name: str,
    x: Callable[[ComparedRun], float | None],
    y: Callable[[ComparedRun], Share | None],
) -> tuple[Point, ...]:
    """The points of one series, the highest keep ratio first."""
    points = []
    for run in comparison.sorted_runs:
        across, up = x(run), y(run)
        if across is None or up is None or _series_name(comparison, run) != name:
            continue
        point = run.options if run.keep_ratio is None else f"z {run.keep_ratio:g}"
        figures = f"{100 * up.value:.2f} % ({100 * up.low:.2f}-{100 * up.high:.2f}) at {across:.4g}"
        label = ", ".join(filter(None, [name, point])) + f": {figures}"
        points.append(Point(across, 100 * up.value, 100 * up.low, 100 * up.high, label))
    return tuple(points)


def _gflops(run: ComparedRun) -> float | None:
    return None if run.report.cost is None else run.report.cost.total_gmacs


def _seconds(run: ComparedRun) -> float | None:
    return run.report.seconds_per_view


def _top1(run: ComparedRun) -> Share | None:
    found = run.accuracy()
    return None if found is None else found.top1


def _same(run: ComparedRun) -> Share | None:
    found = run.agreement()
    return None if found is None else found.same


# ---- tables, pictures, runs


def _table(table: Table) -> Html:
    numeric = [all(not isinstance(row[i].value, str) for row in table.rows) for i in range(len(table.columns))]
    head = [
        tag("th", tag("button", title, type="button"), scope="col", data_kind="number" if number else "text")
        for title, number in zip(table.columns, numeric, strict=True)
    ]
    rows = [tag("tr", *(_cell(*pair) for pair in zip(row, numeric, strict=True))) for row in table.rows]
    return tag(
        "section",
        tag("h2", table.title),
        tag("div", tag("table", tag("thead", tag("tr", *head)), tag("tbody", *rows)), class_="wide", tabindex=0),
        tag("p", table.note, class_="note") if table.note else None,
    )


def _cell(cell: Cell, numeric: bool) -> Html:
    return tag("td", cell.text, data_value=cell.value, class_="number" if numeric else None)


def _gallery(pictures: Sequence[Picture]) -> Html | None:
    if not pictures:
        return None
    figures = [
        tag(
            "figure",
            tag("img", src=f"data:image/png;base64,{base64.b64encode(one.png).decode()}", alt=one.caption),
            tag("figcaption", one.caption),
        )
        for one in pictures
    ]
    return tag("section", tag("h2", "What was kept"), *figures, class_="gallery")


def _runs(comparison: Comparison) -> Html:
    return tag("section", tag("h2", "Each run"), *map(details, comparison.sorted_runs))
