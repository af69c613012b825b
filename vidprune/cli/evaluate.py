"""`vidprune evaluate`: accuracy over a manifest, kept in a folder that the same command goes on with."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidprune.cli import options as opt

if TYPE_CHECKING:
    from vidprune.evaluation.report import EvaluationReport
    from vidprune.evaluation.store import Row


def evaluate(
    manifest: Annotated[str, typer.Argument(help="A list of videos with labels, or a folder of class folders.")],
    out: Annotated[Path, typer.Option(help="Folder of the run; the same command goes on where it stopped.")],
    root: Annotated[str | None, typer.Option(help="Folder that the manifest's relative paths start from.")] = None,
    manifest_format: Annotated[str, typer.Option("--format", help="The manifest's format.")] = "auto",
    model: opt.Model = None,
    checkpoint: opt.Checkpoint = None,
    method: opt.Method = None,
    keep_ratio: opt.KeepRatio = None,
    proposal: opt.Proposal = None,
    proposal_checkpoint: opt.ProposalCheckpoint = None,
    input_treatment: opt.InputTreatment = None,
    method_option: opt.MethodOptions = None,
    protocol: opt.Protocol = None,
    num_segments: opt.Segments = None,
    num_crops: opt.Crops = None,
    class_names: opt.ClassNames = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    backend: opt.Backend = None,
    views_per_batch: Annotated[
        int | None, typer.Option(min=1, help="Views per forward pass; default: one video's.")
    ] = None,
    config: opt.Config = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Decode processes; 0 decodes in this one.")] = None,
    timeout_s: Annotated[float, typer.Option(help="Give up decoding a file after so many seconds.")] = 120.0,
    max_failed: Annotated[int, typer.Option(min=0, help="Failures that still count as success.")] = 0,
    store: Annotated[str, typer.Option(help="Keep every view's logits, or only the averaged probs.")] = "logits",
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try failed videos again.")] = False,
    as_json: opt.Json = False,
) -> None:
    """Evaluate a list of videos; every one gets a row, with its prediction or with the reason why there is none.

    Stop it at any time: the same command goes on where it stopped, and refuses to mix results of different settings.
    Under `torchrun` every process takes its share. The exit code is 2 when more videos fail than --max-failed allows.
    """
    from vidprune.config import EvaluateConfig
    from vidprune.runs import evaluate as run_evaluation

    run = opt.resolve(
        config,
        model={"name": model, "checkpoint": checkpoint},
        method=opt.method_fields(
            method,
            method_option,
            keep_ratio=keep_ratio,
            proposal=proposal,
            proposal_checkpoint=proposal_checkpoint,
            input_treatment=input_treatment,
        ),
        views={"protocol": protocol, "num_segments": num_segments, "num_crops": num_crops},
        class_names=class_names,
        device=device,
        dtype=dtype,
        backend=backend,
        views_per_batch=views_per_batch,
    )
    settings = EvaluateConfig(
        manifest=manifest,
        out=str(out),
        run=run,
        root=root,
        manifest_format=manifest_format,
        workers=workers,
        timeout_s=timeout_s,
        max_failed=max_failed,
        store=store,
        retry_failed=retry_failed,
    )
    with _notice_to_leave(), _progress() as (on_start, on_row):
        report = run_evaluation(settings, on_start=on_start, on_row=on_row)
    if report.is_complete:  # under torchrun, the last process speaks for all
        _print(report, as_json)
        _judge(report, max_failed)


@contextmanager
def _notice_to_leave() -> Iterator[None]:
    """SIGTERM, a scheduler's notice, acts as Ctrl-C does: what is computed is stored first."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress() -> Iterator[tuple[Callable[[int, int, Sequence[str]], None], Callable[[Row], None]]]:
    """A bar on stderr with rate, time left and failures; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    from vidprune.cli.screen import warn

    err = Console(stderr=True)
    bar = Progress(
        TextColumn("evaluating"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("[red]{task.fields[failed]}[/]"),
        console=err,
        disable=not err.is_terminal or os.environ.get("RANK", "0") != "0",
        transient=True,
    )
    with bar:
        task = bar.add_task("evaluating", total=None, rate="", failed="")
        num_failed = 0

        def on_start(num_to_do: int, num_done: int, warnings: Sequence[str]) -> None:
            for warning in warnings:
                warn(f"warning: {warning}")
            bar.reset(task, total=num_to_do)
            if num_done:
                err.print(f"going on: {num_done} videos are done, {num_to_do} are left", style="dim")

        def on_row(row: Row) -> None:
            nonlocal num_failed
            if bar.disable:
                return
            num_failed += row.error is not None
            speed = bar.tasks[task].speed
            bar.update(
                task,
                advance=1,
                rate=f"{speed:.1f} videos/s" if speed else "",
                failed=f"{num_failed} failed" if num_failed else "",
            )

        yield on_start, on_row


def _print(report: EvaluationReport, as_json: bool) -> None:
    from vidprune.cli.report import print_reports

    if as_json:
        print(json.dumps(report.as_dict(), ensure_ascii=False))
    else:
        print_reports([report])


def _judge(report: EvaluationReport, max_failed: int) -> None:
    from vidprune.cli.screen import warn

    if report.num_failed <= max_failed:
        return
    for failure in report.failures[:5]:
        warn(f"failed: {failure.reason}")
    warn(
        f"{report.num_failed} videos failed, --max-failed allows {max_failed}; all are named in "
        f"{Path(report.run) / 'predictions.csv'}"
    )
    raise typer.Exit(2)
