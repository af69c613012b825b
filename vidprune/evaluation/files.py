"""The files beside a store that people and scripts read: report.md, metrics.json, predictions.csv."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidprune.evaluation.metrics import Accuracy, Share
from vidprune.evaluation.predictions import Predictions, read_predictions
from vidprune.evaluation.rank_files import find_rank_files, merge_rank_files
from vidprune.evaluation.report import EvaluationReport, make_report
from vidprune.evaluation.store import PredictionStore, writing
from vidprune.evaluation.text_files import replace_text

MAX_FAILURES_SHOWN = 50


def write_report(folder: str | Path) -> EvaluationReport:
    """Write the three files into the run's folder from its store, and return the report.

    Args:
        folder: of a run, or one with the result files that VideoMAE's own code wrote (see `rank_files`).

    Raises:
        StoreError: `folder` is neither, or cannot be written.
        ConfigError: VideoMAE's files are damaged.
    """
    store, predictions = open_run(folder)
    return write_run_files(store, predictions or read_predictions(store))


def write_run_files(store: PredictionStore, predictions: Predictions) -> EvaluationReport:
    """Write the three files beside a store that is read already. Raises `StoreError` where that cannot be."""
    report = make_report(store, predictions)
    texts = {
        "report.md": markdown(report),
        "metrics.json": json.dumps(report.as_dict(), indent=2, ensure_ascii=False) + "\n",
        "predictions.csv": predictions_csv(predictions),
    }
    write_texts(store.folder, texts)
    return report


def write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    """Write text files by name into a folder, which is made if need be. Raises `StoreError` where that cannot be."""
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            replace_text(folder / name, text)


def is_run(folder: Path) -> bool:
    """Whether `open_run` may find a run there."""
    return (folder / "header.json").exists() or bool(find_rank_files(folder))


def open_run(folder: str | Path) -> tuple[PredictionStore, Predictions | None]:
    """The store of a run, whose parts are not read yet. VideoMAE's result files have none, but predictions at once.

    Raises:
        StoreError: `folder` is neither.
        ConfigError: VideoMAE's files are damaged.
    """
    folder = Path(folder)
    if not (folder / "header.json").exists() and find_rank_files(folder):
        header, predictions = merge_rank_files(folder)
        return PredictionStore(folder, header), predictions
    return PredictionStore.open(folder), None


def predictions_csv(predictions: Predictions) -> str:
    """One line per finished video; classes by index, a space between those of the top 5."""
    columns = predictions.columns
    by_probs, by_logits = predictions.ranked["probs"], predictions.ranked.get("logits")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    plain = ("num_kept", "num_errors", "num_filled", "decode_s", "model_s", "error")
    writer.writerow(
        ["video_id", "path", "label", "predicted", "prob", "correct", "top5", "predicted_by_logits", *plain]
    )
    for i, (failed, label) in enumerate(zip(predictions.failed, columns["label"], strict=True)):
        row: list[Any] = [columns["video_id"][i], columns["path"][i], label]
        if failed:
            row += [None] * 5
        else:
            row += [
                by_probs[i, 0],
                f"{predictions.prob[i]:.6f}",
                None if label is None else int(by_probs[i, 0] == label),
            ]
            row += [" ".join(map(str, by_probs[i])), None if by_logits is None else by_logits[i, 0]]
        writer.writerow(row + [_short(columns[name][i]) for name in plain])
    return text.getvalue()


def markdown(report: EvaluationReport) -> str:
    """The report as Markdown."""
    views = report.views
    method = " ".join(str(v) for k, v in report.method.items() if k in ("name", "keep_ratio", "proposal"))
    lines = [
        f"# {report.model}, {method}",
        "",
        f"{report.denominator}." + ("" if report.is_complete else " **This run is incomplete.**"),
        "",
        f"Protocol {report.protocol}: {views['num_segments']} segments x {views['num_crops']} crops of "
        f"{views['num_frames']} frames, stride {views['frame_stride']}, {views['crop_size']} px. "
        f"Tokens kept: {report.tokens}.{_cost_sentence(report)} Weights: {report.weights}; {report.dtype} on "
        f"{report.environment['device']}.",
        "",
        *_accuracy_lines(report),
        *_worst_lines(report),
        *_failure_lines(report),
        *[f"Computed in other surroundings: {text}.\n" for text in report.other_environments],
        *[f"Warning: {warning}\n" for warning in report.manifest["warnings"]],
        f"Manifest {report.manifest['source']} ({report.manifest['format']}); run {report.digest[:12]}; "
        f"vidprune {report.environment['vidprune']}, "
        + ", ".join(f"{name} {version}" for name, version in report.environment["packages"].items())
        + (f"; git {report.environment['git']}" if report.environment["git"] else "")
        + ".",
    ]
    return "\n".join(lines) + "\n"


def accuracy_cells(accuracy: Accuracy) -> list[tuple[str, str]]:
    """(what, figure) pairs for a table; figures in per cent with their 95 % Wilson intervals."""
    pairs = [
        ("top-1 of decoded", accuracy.top1),
        ("top-5 of decoded", accuracy.top5),
        ("top-1 of listed, failures wrong", accuracy.top1_listed),
        ("top-5 of listed, failures wrong", accuracy.top5_listed),
    ]
    cells = [(what, share_text(share)) for what, share in pairs]
    mean = "-" if accuracy.mean_class is None else f"{100 * accuracy.mean_class:.2f} %"
    return [*cells, ("mean class accuracy of decoded", mean)]


def share_text(share: Share | None) -> str:
    """ "81.20 % (80.65-81.74), 16073 of 19796"."""
    if share is None:
        return "-"
    bounds = f"{100 * share.low:.2f}-{100 * share.high:.2f}"
    return f"{100 * share.value:.2f} % ({bounds}), {share.num_correct} of {share.num_total}"


def _cost_sentence(report: EvaluationReport) -> str:
    if report.cost is None:
        return ""
    vit, proposal, dense = report.cost.vit_gmacs, report.cost.proposal_gmacs, report.cost.dense_gmacs
    return f" GFLOPs per view: {vit:.4g}, the proposal's {proposal:.4g}, dense {dense:.4g}."


def _accuracy_lines(report: EvaluationReport) -> list[str]:
    if not report.accuracies:
        return ["The manifest gives no labels, so there is no accuracy.", ""]
    averages = [accuracy.average for accuracy in report.accuracies]
    lines = ["| views averaged by | " + " | ".join(averages) + " |", "|---|" + "---|" * len(averages)]
    for row in zip(*(accuracy_cells(accuracy) for accuracy in report.accuracies), strict=True):
        lines.append(f"| {row[0][0]} | " + " | ".join(figure for _, figure in row) + " |")
    return [*lines, "", "In brackets: 95 % Wilson intervals.", ""]


def _worst_lines(report: EvaluationReport) -> list[str]:
    if not report.worst:
        return []
    names = report.class_names
    lines = ["Classes with the lowest accuracy:", "", "| class | correct | most often taken for |", "|---|---|---|"]
    for row in report.worst:
        taken = "-" if row.confused_with is None else f"{names[row.confused_with]} ({row.num_confused})"
        lines.append(f"| {names[row.label]} ({row.label}) | {row.num_correct} of {row.num_videos} | {taken} |")
    return [*lines, ""]


def _failure_lines(report: EvaluationReport) -> list[str]:
    if not report.failures:
        return []
    lines = ["Failures:", "", "| reason | videos |", "|---|---|"]
    lines += [f"| {markdown_cell(kind)} | {count} |" for kind, count in report.failure_kinds()[:MAX_FAILURES_SHOWN]]
    lines += ["", *(f"- {markdown_cell(failure.reason)}" for failure in report.failures[:MAX_FAILURES_SHOWN])]
    rest = len(report.failures) - MAX_FAILURES_SHOWN
    return [*lines, *([f"- and {rest} more, all in predictions.csv"] if rest > 0 else []), ""]


def markdown_cell(text: str) -> str:
    """Text that stays one cell of a Markdown table, and text."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())


def _short(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value
