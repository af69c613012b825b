"""`vidprune validate`: what is wrong with a manifest or a config, before anything runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vidprune.cli import flag_types as flag
from vidprune.errors import VidpruneError

MAX_LINES = 20  # of problems on a screen; --json has all


def validate(
    path: Annotated[str, typer.Argument(help="A list of videos, a folder of class folders, demo, or a YAML config.")],
    root: Annotated[str | None, typer.Option(help="Folder of relative paths; else the list's own folder.")] = None,
    format: Annotated[str, typer.Option(help="auto, videomae, mmaction, paths, csv, kinetics, folder.")] = "auto",
    class_names: flag.ClassNames = None,
    num_classes: Annotated[int | None, typer.Option(min=1, help="Labels must be below it.")] = None,
    own_label_order: Annotated[
        bool, typer.Option("--own-label-order", help="Other labels than Kinetics-400's published ones are meant.")
    ] = False,
    settings: flag.Settings = None,
    as_json: flag.Json = False,
) -> None:
    """Say what is wrong with a manifest or a config before anything runs.

    A manifest is read whole and its files are looked for; a config's names, options and files are checked, its manifest
    too, and every model it describes is built without weights. Exit code 0 if usable, else 2 with one line per problem.
    """
    try:
        if Path(path).suffix.lower() in (".yaml", ".yml") and not Path(path).is_dir():
            report = _check_config(path, settings)
        else:
            report = _check_manifest(path, root, format, class_names, num_classes, own_label_order)
    except VidpruneError as error:
        report = {"problems": [str(error)], "warnings": []}
    usable = not report["problems"]
    report = {"path": path, "usable": usable} | report
    if as_json:
        print(json.dumps(report, ensure_ascii=False))
    else:
        _print(report)
    if not usable:
        raise typer.Exit(2)


def _check_manifest(
    path: str,
    root: str | None,
    format: str,
    class_names: str | None,
    num_classes: int | None,
    own_label_order: bool,
) -> dict[str, Any]:
    from vidprune.config import demo_or_path
    from vidprune.evaluation.inspection import inspect_manifest
    from vidprune.labels import class_names as read_class_names

    names = read_class_names(class_names, num_classes) if class_names else None
    report = inspect_manifest(
        demo_or_path(path),
        root=root,
        format=format,
        class_names=names,
        num_classes=num_classes,
        own_label_order=own_label_order,
    )
    return {"kind": "manifest"} | asdict(report)


def _check_config(path: str, settings: list[str] | None) -> dict[str, Any]:
    from vidprune.config import apply_settings, check_config, read_data

    check = check_config(apply_settings(read_data(path), settings or ()), source=path)
    report: dict[str, Any] = {"kind": "config", "verb": check.verb}
    if check.evaluation is not None:
        report |= {"manifest": check.evaluation.manifest, "out": check.evaluation.out}
    if check.verb == "sweep":
        report["points"] = [point.name for point in check.points]
    elif check.points:
        run = check.points[0].run
        report |= {"model": run.model.name, "checkpoint": run.model.checkpoint}
        report |= {"method": run.method, "views": dict(run.views), "device": run.device, "dtype": run.dtype}
    return report | {"warnings": check.warnings, "problems": check.problems}


def _print(report: dict[str, Any]) -> None:
    from vidprune.cli.screen import console, warn

    facts = _manifest_facts(report) if report.get("kind") == "manifest" else _config_facts(report)
    width = max(map(len, facts), default=0)
    lines = [f"{report['path']}: {'usable' if report['usable'] else 'not usable'}"]
    lines += [f"  {name:<{width}}  {value}" for name, value in facts.items()]
    console().print("\n".join(lines), markup=False, soft_wrap=True)  # a path is copied whole, never broken
    for line in report["warnings"][:MAX_LINES]:
        warn(f"warning: {line}")
    for line in report["problems"][:MAX_LINES]:
        warn(f"error: {line}")
    for kind in ("warnings", "problems"):
        if len(report[kind]) > MAX_LINES:
            warn(f"... and {len(report[kind]) - MAX_LINES} more {kind}; --json lists all")


def _manifest_facts(report: dict[str, Any]) -> dict[str, str]:
    copy = f" ({report['known_size']})" if report["known_size"] else ""
    facts = {"format": report["format"], "videos": f"{report['num_videos']:,}{copy}"}
    if report["label_range"]:
        low, high = report["label_range"]
        empty = f", {report['num_empty_classes']} classes have no video" if report["num_empty_classes"] else ""
        facts["labels"] = f"{report['num_classes_seen']} classes from {low} to {high}{empty}"
        per_class = [report[end][0]["num_videos"] for end in ("fewest", "most")]
        if per_class[0] == per_class[1]:
            facts["videos per class"] = f"{per_class[0]:,}"
        else:
            facts["fewest videos"] = _counts(report["fewest"])
            facts["most videos"] = _counts(report["most"])
    if report["num_labelled"] < report["num_videos"]:
        facts["without label"] = f"{report['num_videos'] - report['num_labelled']:,}"
    facts["repeated rows"] = f"{report['num_repeated']:,}"
    facts["missing files"] = f"{report['num_missing']:,}" + "".join(f"\n    {name}" for name in report["missing"])
    facts["label order"] = report["label_order"]["text"]
    return facts


def _counts(counts: list[dict[str, int]]) -> str:
    return ", ".join(f"class {count['label']}: {count['num_videos']}" for count in counts)


def _config_facts(report: dict[str, Any]) -> dict[str, str]:
    from vidprune.config import method_steps

    names = ("verb", "manifest", "out", "model", "checkpoint", "device", "dtype")
    facts = {name: str(report[name]) for name in names if report.get(name) is not None}
    parts = {"method": method_steps(report.get("method") or []), "views": [report.get("views") or {}]}
    for name, mappings in parts.items():
        words = (", ".join(f"{key} {value}" for key, value in mapping.items()) for mapping in mappings)
        facts[name] = ", then ".join(filter(None, words))
    if report.get("points"):
        facts["points"] = f"{len(report['points'])}" + "".join(f"\n    {name}" for name in report["points"])
    return {name: value for name, value in facts.items() if value}
