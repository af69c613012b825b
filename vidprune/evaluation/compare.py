"""From the folders of runs to a comparison, and to the files that show it. No model is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from vidprune.errors import ConfigError
from vidprune.evaluation.agreement import Reference, agreement, read_reference
from vidprune.evaluation.comparison import ComparedRun, Comparison, varying_options
from vidprune.evaluation.files import is_run, load_run, write_texts
from vidprune.evaluation.page import page
from vidprune.evaluation.predictions import Predictions
from vidprune.evaluation.report import EvaluationReport, make_report
from vidprune.evaluation.store import PredictionStore, StoreError
from vidprune.evaluation.tables import comparison_csv, comparison_markdown


def write_comparison(folders: Sequence[Path], out: Path) -> Comparison:
    """Compare runs and write OUT/table.md, OUT/table.csv and OUT/report.html.

    Args:
        folders: of runs, or folders of such folders (see `find_runs`).
        out: where the files go; made if need be.

    Raises:
        StoreError: a folder holds no run, or `out` cannot be written.
    """
    comparison = compare(find_runs(folders))
    texts = {
        "table.md": comparison_markdown(comparison),
        "table.csv": comparison_csv(comparison),
        "report.html": page(comparison),
    }
    write_texts(Path(out), texts)
    return comparison


def find_runs(folders: Sequence[str | Path]) -> list[Path]:
    """Each folder that is a run, and the runs below each that is not: FOLDER/points/*, as a sweep writes, or FOLDER/*.

    Raises:
        StoreError: a folder holds neither.
    """
    return [run for folder in folders for run in _runs_of(Path(folder))]


def _runs_of(folder: Path) -> list[Path]:
    if is_run(folder):
        return [folder]
    points = folder / "points"
    parent = points if points.is_dir() else folder
    found = [path for path in parent.iterdir() if path.is_dir() and is_run(path)] if parent.is_dir() else []
    if not found:
        raise StoreError(f"{folder} is no run: it has no header.json, nor has any folder in it; name what --out named")
    return sorted(found, key=lambda path: [int(t) if t.isdecimal() else t for t in re.split(r"(\d+)", path.name)])


def compare(
    folders: Sequence[Path],
    report: Callable[[PredictionStore, Predictions], EvaluationReport] = make_report,
) -> Comparison:
    """The figures of runs, each beside the dense run among them of its model, weights, views and list of videos.

    Memory holds one distribution per video of each dense run, and one part of a store at a time.

    Args:
        folders: of runs, see `find_runs`.
        report: makes each run's figures; `files.write_run_files` also writes the files beside its store.

    Raises:
        StoreError: a folder holds no run.
    """
    stores: list[PredictionStore] = []
    reports: list[EvaluationReport] = []
    for folder in folders:
        store, predictions = load_run(folder)
        stores.append(store)
        reports.append(report(store, predictions))
    options = varying_options([one.method for one in reports])
    runs = [
        ComparedRun(name, one, store.header, text)
        for name, one, store, text in zip(_names(folders), reports, stores, options, strict=True)
    ]
    references: dict[int, Reference] = {}
    return Comparison(tuple(_beside_dense(number, runs, stores, references) for number in range(len(runs))))


def _beside_dense(
    number: int, runs: list[ComparedRun], stores: list[PredictionStore], references: dict[int, Reference]
) -> ComparedRun:
    """A run with its agreement; `references` keeps what is read of dense runs."""
    run = runs[number]
    candidates = _dense_runs(number, runs)
    if run.is_dense or len(runs) == 1:
        return run
    if not candidates:
        return replace(run, note="no dense run of the same model, weights and views")
    refusals = []
    for chosen in candidates:
        dense = runs[chosen]
        try:
            if chosen not in references:
                references[chosen] = read_reference(stores[chosen])
            agreements = agreement(references[chosen], stores[number])
        except ConfigError as error:
            refusals.append(f"not compared with {dense.name}: {error}")
            continue
        note = "" if agreements else f"no video that {dense.name} decoded too"
        if run.report.dtype != dense.report.dtype:
            note = f"{dense.name} ran in {dense.report.dtype}, this in {run.report.dtype}"
        return replace(run, dense=dense.name, agreements=agreements, speedup=_speedup(dense, run), note=note)
    return replace(run, note="; ".join(refusals))


def _dense_runs(number: int, runs: list[ComparedRun]) -> list[int]:
    """The dense runs of the same model, weights and views; those of the same precision first."""
    own = runs[number]
    found = [index for index, run in enumerate(runs) if run.is_dense and _same_model_and_views(own, run)]
    return sorted(found, key=lambda index: runs[index].report.dtype != own.report.dtype)


def _same_model_and_views(one: ComparedRun, other: ComparedRun) -> bool:
    identities = one.header["identity"], other.header["identity"]
    keys = ("model", "views", "protocol_version")
    return all(identities[0][key] == identities[1][key] for key in keys)


def _speedup(dense: ComparedRun, run: ComparedRun) -> float | None:
    before, after = dense.report.seconds_per_view, run.report.seconds_per_view
    alike = (
        dense.report.dtype == run.report.dtype
        and dense.report.environment["device"] == run.report.environment["device"]
    )
    return before / after if alike and before and after else None


def _names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart."""
    paths = [Path(folder).resolve() for folder in folders]
    names, length = [path.name for path in paths], 1
    while len(set(names)) < len(set(paths)):
        length += 1
        names = ["/".join(path.parts[-length:]) for path in paths]
    return names
