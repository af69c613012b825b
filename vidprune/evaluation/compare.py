"""From the folders of runs to a comparison, and to the files that show it. No model is loaded."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidprune.evaluation.agreement import BesideDense, Reference, make_reference
from vidprune.evaluation.comparison import ComparedRun, Comparison, varying_options
from vidprune.evaluation.files import is_run, open_run, write_texts
from vidprune.evaluation.page import page
from vidprune.evaluation.predictions import Part, Predictions, gather_predictions, read_parts
from vidprune.evaluation.report import EvaluationReport, make_report
from vidprune.evaluation.store import PredictionStore, StoreError
from vidprune.evaluation.tables import comparison_csv, comparison_markdown

MakeReport = Callable[[PredictionStore, Predictions], EvaluationReport]


def write_comparison(folders: Sequence[Path], out: Path, report: MakeReport = make_report) -> Comparison:
    """Compare runs and write OUT/table.md, OUT/table.csv and OUT/report.html.

    Args:
        folders: of runs, or folders of such folders (see `find_runs`).
        out: where the files go; made if need be.
        report: see `compare`.

    Raises:
        StoreError: a folder holds no run, or `out` cannot be written.
    """
    comparison = compare(find_runs(folders), report)
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


def compare(folders: Sequence[Path], report: MakeReport = make_report) -> Comparison:
    """The figures of runs, each beside the dense run among them of its model, weights, views and list of videos.

    Every store is read once. Memory holds one distribution per video of each dense run that another run may be compared
    with, and one part of another store at a time.

    Args:
        folders: of runs, see `find_runs`.
        report: makes each run's figures; `files.write_run_files` also writes the files beside its store.

    Raises:
        StoreError: a folder holds no run.
    """
    opened = [open_run(folder) for folder in folders]
    identities = [store.header["identity"] for store, _ in opened]
    dense_runs = [_dense_runs(identity, identities) for identity in identities]
    wanted = {dense for found in dense_runs for dense in found}
    references: dict[int, Reference] = {}
    besides: dict[int, dict[int, BesideDense]] = {}
    reports: dict[int, EvaluationReport] = {}
    # Dense runs come first: the others are set beside them while they are read.
    for number in sorted(range(len(opened)), key=lambda number: number not in wanted):
        store, predictions = opened[number]
        besides[number] = {dense: BesideDense(references[dense], store) for dense in dense_runs[number]}
        if number in wanted:
            predictions, references[number] = _read_dense(store)
        elif predictions is None:
            predictions = gather_predictions(store, _counted(read_parts(store), besides[number].values()))
        reports[number] = report(store, predictions)
    options = varying_options([identity["method"] for identity in identities])
    runs = [
        ComparedRun(name, reports[number], opened[number][0].header, options[number])
        for number, name in enumerate(_names(folders))
    ]
    return Comparison(tuple(_beside_dense(run, runs, besides[number]) for number, run in enumerate(runs)))


def _dense_runs(own: Mapping[str, Any], identities: Sequence[Mapping[str, Any]]) -> list[int]:
    """The dense runs that a run may be compared with: of its model, weights and views; of its precision first."""
    if own["method"]["name"] == "dense":
        return []
    found = [
        number
        for number, other in enumerate(identities)
        if other["method"]["name"] == "dense"
        and all(own[key] == other[key] for key in ("model", "views", "protocol_version"))
    ]
    return sorted(found, key=lambda number: identities[number]["dtype"] != own["dtype"])


def _read_dense(store: PredictionStore) -> tuple[Predictions, Reference]:
    parts = list(read_parts(store))
    return gather_predictions(store, parts), make_reference(store, parts)


def _counted(parts: Iterable[Part], besides: Collection[BesideDense]) -> Iterator[Part]:
    """The parts of a store, each set beside those of the dense runs on its way."""
    for part in parts:
        for beside in besides:
            beside.add(part)
        yield part


def _beside_dense(run: ComparedRun, runs: Sequence[ComparedRun], besides: Mapping[int, BesideDense]) -> ComparedRun:
    """A run with its agreement with the first of its dense runs, by number, that is over the same list of videos."""
    if run.is_dense or len(runs) == 1:
        return run
    if not besides:
        return replace(run, note="no dense run of the same model, weights and views")
    refusals = []
    for number, beside in besides.items():
        dense = runs[number]
        if beside.refusal:
            refusals.append(f"not compared with {dense.name}: {beside.refusal}")
            continue
        agreements = beside.agreements()
        note = "" if agreements else f"no video that {dense.name} decoded too"
        if run.report.dtype != dense.report.dtype:
            note = f"{dense.name} ran in {dense.report.dtype}, this in {run.report.dtype}"
        return replace(run, dense=dense.name, agreements=agreements, speedup=_speedup(dense, run), note=note)
    return replace(run, note="; ".join(refusals))


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
