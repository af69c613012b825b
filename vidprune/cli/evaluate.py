"""`vidprune evaluate`: accuracy over a manifest, kept in a folder that the same command goes on with."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from vidprune.cli import flag_types as flag
from vidprune.cli import options as opt

if TYPE_CHECKING:
    from vidprune.evaluation.report import EvaluationReport


@opt.spread()
def evaluate(
    manifest: Annotated[
        str | None, typer.Argument(help="A list of videos with labels, or a folder of class folders; demo.")
    ] = None,
    out: flag.Out = None,
    root: flag.Root = None,
    manifest_format: flag.ManifestFormat = None,
    *,
    flags: opt.RunFlags,
    evaluation: opt.EvaluationFlags,
    as_json: flag.Json = False,
) -> None:
    """Evaluate a list of videos; every one gets a row, with its prediction or with the reason why there is none.

    Labels are needed for accuracy alone: a folder or a list of videos will do, and gives predictions.csv.

    Stop it at any time: the same command goes on where it stopped, and refuses to mix results of different settings.
    Under `torchrun` every process takes its share. The exit code is 2 when more videos fail than --max-failed allows.
    """
    from vidprune.cli.running import judge, notice_to_leave, video_progress
    from vidprune.runs import evaluate as run_evaluation

    config = flags.resolve_evaluation(
        manifest=manifest, out=out, root=root, manifest_format=manifest_format, **asdict(evaluation)
    )
    with notice_to_leave(), video_progress("evaluating") as (on_start, on_row):
        report = run_evaluation(config, on_start=on_start, on_row=on_row)
    if report.is_complete:  # under torchrun, the last process speaks for all
        _print(report, as_json)
        judge(report, config.max_failed)


def _print(report: EvaluationReport, as_json: bool) -> None:
    from vidprune.cli.report import print_reports

    if as_json:
        print(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        print_reports([report])
