"""The part of the page that unfolds for one run: figures, worst classes, failures, config, versions."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vidprune.evaluation.agreement import Agreement
from vidprune.evaluation.comparison import ComparedRun
from vidprune.evaluation.files import MAX_FAILURES_SHOWN, accuracy_cells, share_text
from vidprune.evaluation.page_markup import Html, joined, tag
from vidprune.evaluation.report import EvaluationReport
from vidprune.evaluation.tables import difference_text, run_note


def details(run: ComparedRun) -> Html:
    """One run, folded."""
    report = run.report
    ratio = "" if run.keep_ratio is None else f", z {run.keep_ratio:g}"
    parts: list[Html | None] = [
        tag("summary", tag("b", run.name), f" {report.model}, {run.method}{ratio}"),
        tag("p", run_note(run) + "."),
        _facts(report),
        *(_accuracy(report)),
        *(_agreements(run)),
        *(_worst(report)),
        *(_failures(report)),
        _folded("Config", run.header.get("config") or run.header["identity"]),
        _folded("Versions and device", report.environment),
    ]
    return tag("details", *parts, class_="run")


def _facts(report: EvaluationReport) -> Html:
    facts = {
        "Folder": report.run,
        "Weights": report.weights,
        "Tokens": report.tokens,
        "Manifest": f"{report.manifest['source']} ({report.manifest['format']})",
        "Digest": report.digest,
        "Damaged videos": str(report.num_damaged),
        "Decoding": _seconds(report.decode_s),
        "Model": _seconds(report.model_s),
    }
    if report.cost is not None:
        cost = report.cost
        facts["GFLOPs per view"] = (
            f"{cost.total_gmacs:.4g}: ViT {cost.vit_gmacs:.4g}, proposal {cost.proposal_gmacs:.4g}; "
            f"dense {cost.dense_gmacs:.4g} (convention {cost.convention})"
        )
    for number, text in enumerate(report.other_environments, start=1):
        facts[f"Other surroundings {number}"] = text
    return tag("dl", *(joined([tag("dt", name), tag("dd", text)]) for name, text in facts.items()))


def _seconds(value: float | None) -> str:
    return "not recorded" if value is None else f"{value:.4f} s per video"


def _accuracy(report: EvaluationReport) -> Iterable[Html]:
    if not report.accuracies:
        yield tag("p", "The manifest gives no labels, so there is no accuracy.")
        return
    columns = [dict(accuracy_cells(accuracy)) for accuracy in report.accuracies]
    rows = [[what, *(column[what] for column in columns)] for what in columns[0]]
    yield _small_table("Accuracy", ["views averaged by", *(one.average for one in report.accuracies)], rows)


def _agreements(run: ComparedRun) -> Iterable[Html]:
    if not run.agreements:
        return
    rows = [
        ["same first class", *(share_text(one.same) for one in run.agreements)],
        ["KL(dense || run), nats", *(f"{one.kl:.5f}" for one in run.agreements)],
        ["top-1 less the dense run's", *(_difference(one) for one in run.agreements)],
    ]
    yield _small_table(f"Beside {run.dense}", ["views averaged by", *(one.average for one in run.agreements)], rows)


def _difference(one: Agreement) -> str:
    if one.top1 is None:
        return "-"
    return f"{difference_text(one.top1)}; {one.top1.num_gained} gained, {one.top1.num_lost} lost"


def _worst(report: EvaluationReport) -> Iterable[Html]:
    if not report.worst:
        return
    names = report.class_names
    rows = [
        [
            f"{names[row.label]} ({row.label})",
            f"{row.num_correct} of {row.num_videos}",
            "-" if row.confused_with is None else f"{names[row.confused_with]} ({row.num_confused})",
        ]
        for row in report.worst
    ]
    yield _small_table("Classes with the lowest accuracy", ["class", "correct", "most often taken for"], rows)


def _failures(report: EvaluationReport) -> Iterable[Html]:
    if not report.failures:
        return
    kinds = report.failure_kinds()[:MAX_FAILURES_SHOWN]
    yield _small_table("Failures", ["reason", "videos"], [[kind, str(count)] for kind, count in kinds])
    named = [tag("li", failure.reason) for failure in report.failures[:MAX_FAILURES_SHOWN]]
    rest = len(report.failures) - MAX_FAILURES_SHOWN
    if rest > 0:
        named.append(tag("li", f"and {rest} more, all in predictions.csv"))
    yield tag("ul", *named, class_="failures")


def _small_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    body = [tag("tr", *(tag("td", text) for text in row)) for row in rows]
    table = tag("table", tag("caption", title), tag("thead", head), tag("tbody", *body))
    return tag("div", table, class_="wide", tabindex=0)


def _folded(title: str, facts: Mapping[str, Any]) -> Html:
    text = json.dumps(facts, indent=2, ensure_ascii=False)
    return tag("details", tag("summary", title), tag("pre", text, tabindex=0))
