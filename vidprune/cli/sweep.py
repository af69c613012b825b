"""`vidprune sweep`: many models, methods, proposals and keep ratios over the videos of one manifest."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from vidprune.cli import flag_types as flag
from vidprune.cli import options as opt


@opt.spread()
def sweep(
    config: Annotated[str, typer.Argument(help="YAML file that lists models, methods, proposals and keep ratios.")],
    manifest: Annotated[str | None, typer.Option(help="A list of videos with labels, or class folders; demo.")] = None,
    out: flag.Out = None,
    root: flag.Root = None,
    manifest_format: flag.ManifestFormat = None,
    device: flag.Device = None,
    views_per_batch: flag.ViewsPerBatch = None,
    *,
    evaluation: opt.EvaluationFlags,
    settings: flag.Settings = None,
    as_json: flag.Json = False,
) -> None:
    """Evaluate every point of a config, the dense models too, and write table.md, table.csv and report.html.

    Each video is decoded once for all points, its views cut once, and each proposal asked once for all keep ratios.
    Every point is a run of its own in OUT/points; the same command goes on where it stopped, and a config that has more
    points evaluates those alone. Under `torchrun` every process takes its share of the videos.
    """
    from vidprune.cli.report import print_comparison
    from vidprune.cli.running import judge, notice_to_leave, video_progress
    from vidprune.config import apply_settings, parse_sweep, read_data
    from vidprune.runs import sweep as run_sweep

    given = {
        "manifest": manifest,
        "out": out,
        "root": root,
        "manifest_format": manifest_format,
        "device": device,
        "views_per_batch": views_per_batch,
        **asdict(evaluation),
    }
    data = read_data(config) | {key: value for key, value in given.items() if value is not None}
    parsed = parse_sweep(apply_settings(data, settings or ()), source=config)
    with notice_to_leave(), video_progress("sweeping") as (on_start, on_video):
        report = run_sweep(parsed, on_start=on_start, on_video=on_video)
    if not report.is_complete:  # under torchrun, the last process speaks for all
        return
    if as_json:
        print(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        print_comparison(report.comparison)
    judge(max(report.reports, key=lambda one: one.num_failed), parsed.evaluation.max_failed)
