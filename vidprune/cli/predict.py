"""`vidprune predict`: top classes of video files."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidprune.cli import flag_types as flag
from vidprune.cli import options as opt
from vidprune.errors import VidpruneError

if TYPE_CHECKING:
    from torch import nn

    from vidprune.config import RunConfig
    from vidprune.types import VideoPrediction
    from vidprune.video import ViewPlan


@opt.spread()
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, patterns, or - for a list on stdin.")],
    *,
    flags: opt.RunFlags,
    top: Annotated[int, typer.Option(min=1, help="Classes per video.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write one JSON line per video to this file; the same command goes on where it stopped."
        ),
    ] = None,
    as_json: flag.Json = False,
) -> None:
    """Predict the class of videos: each is decoded once, pruned, and its 5x3 views become one prediction.

    Files that cannot be read are reported and the others still come out; the exit code is then 2. For thousands of
    videos see `vidprune evaluate`, which decodes in several processes and needs no labels.
    """
    run = flags.resolve()
    rows = _predict_all(inputs, run, top, out, as_json)
    failed = [row for row in rows if "error" in row]
    if failed:
        from vidprune.cli.screen import warn

        if len(rows) > 1:
            warn(f"{len(failed)} of {len(rows)} files failed; the others are complete")
        raise typer.Exit(2)


def _predict_all(inputs: list[str], run: RunConfig, top: int, out: Path | None, as_json: bool) -> list[dict[str, Any]]:
    from vidprune.cli.inputs import expand_inputs
    from vidprune.cli.outputs import RUN_KEY, RowsFile, prepare_file
    from vidprune.cli.screen import console, describe_run, progress, run_line, warn, warn_of_random_weights
    from vidprune.config import build_model, build_views

    files = expand_inputs(inputs)
    prepare_file(out)  # before the model is loaded
    module = build_model(run)
    plan = build_views(run, module)
    facts = {"model": run.model.name} | describe_run(module, plan) | {RUN_KEY: _run_digest(run, top)}
    sink = None if out is None else RowsFile(out, facts)
    if sink is not None and sink.done:
        left = [file for file in files if str(file) not in sink.done]
        warn(f"going on: {len(files) - len(left)} files are done, {len(left)} are left")
        files = left
    predict_one = _predictor(run, module, plan)
    warn_of_random_weights(facts)
    if not as_json:
        console().print(run_line(facts, run.model.name), style="dim", soft_wrap=True)
    rows = []
    with progress(files, "predicting") as paths:
        for path in paths:
            start = time.perf_counter()
            try:
                prediction = predict_one(path)
            except VidpruneError as error:
                row: dict[str, Any] = {"path": str(path), "error": str(error)}
                warn(f"error: {error}")
            else:
                row = {"path": str(path), "top": [asdict(score) for score in prediction.top(top)]}
                row |= {"num_errors": prediction.num_errors, "num_filled": prediction.num_filled}
                row |= {"seconds": round(time.perf_counter() - start, 3)} | facts | {"num_kept": prediction.num_kept}
                if not as_json:
                    _print_row(row)
            rows.append(row)
            if as_json:
                print(json.dumps(row, ensure_ascii=False), flush=True)
            if sink is not None:
                sink.write(row)
    if sink is not None:
        sink.close()
    return rows


def _predictor(run: RunConfig, module: nn.Module, plan: ViewPlan) -> Callable[[Path], VideoPrediction]:
    from vidprune.inference import predict_video
    from vidprune.labels import class_names
    from vidprune.pruning import host_of
    from vidprune.video import VIDEO_BACKENDS

    VIDEO_BACKENDS.describe(run.backend)  # an unknown one is said once, not of every file
    return partial(
        predict_video,
        model=module,
        views=plan,
        class_names=class_names(run.class_names, host_of(module).num_classes) if run.class_names else None,
        backend=run.backend,
        colour=run.colour,
        views_per_batch=run.views_per_batch,
    )


def _print_row(row: dict[str, Any]) -> None:
    from rich.markup import escape

    from vidprune.cli.screen import console

    screen = console()
    note = f"  [yellow]{row['num_errors']} damaged packets or frames, {row['num_filled']} frames filled in[/]"
    damaged = row["num_errors"] or row["num_filled"]
    screen.print(f"[bold]{escape(row['path'])}[/]  {row['seconds']:.1f} s{note if damaged else ''}", soft_wrap=True)
    for rank, score in enumerate(row["top"], start=1):
        screen.print(f"  {rank}  {score['prob']:7.2%}  {escape(score['name'])} [dim]({score['index']})[/]")


def _run_digest(run: RunConfig, top: int) -> str:
    """Twelve digits that tell rows of other settings apart; where and how fast it ran is no such setting."""
    from vidprune.evaluation.identity import digest

    settings = asdict(run) | {"top": top}
    for name in ("device", "compile", "views_per_batch"):
        settings.pop(name)
    return digest(settings)[:12]
