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


@opt.spread()
def evaluate(
    manifest: Annotated[
        str | None, typer.Argument(help="A list of videos with labels, or a folder of class folders; demo.")
    ] = None,
    out: opt.Out = None,
    root: opt.Root = None,
    manifest_format: opt.ManifestFormat = None,
    *,
    flags: opt.RunFlags,
    workers: opt.Workers = None,
    timeout_s: opt.TimeoutS = None,
    max_failed: opt.MaxFailed = None,
    store: opt.Store = None,
    retry_failed: opt.RetryFailed = None,
    limit: opt.Limit = None,
    as_json: opt.Json = False,
) -> None:
    """Evaluate a list of videos; every one gets a row, with its prediction or with the reason why there is none.

    Stop it at any time: the same command goes on where it stopped, and refuses to mix results of different settings.
    Under `torchrun` every process takes its share. The exit code is 2 when more videos fail than --max-failed allows.
    """
    from vidprune.runs import evaluate as run_evaluation

    config = flags.resolve_evaluation(
        manifest=manifest,
        out=out,
        root=root,
        manifest_format=manifest_format,
        workers=workers,
        timeout_s=timeout_s,
        max_failed=max_failed,
        store=store,
        retry_failed=retry_failed,
        limit=limit,
    )
    with _notice_to_leave(), _progress() as (on_start, on_row):
        report = run_evaluation(config, on_start=on_start, on_row=on_row)
    if report.is_complete:  # under torchrun, the last process speaks for all
        _print(report, as_json)
        _judge(report, config.max_failed)


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
    from vidprune.cli.screen import progress_bar, warn

    with progress_bar("rate", "failed", silent=os.environ.get("RANK", "0") != "0") as bar:
        task = bar.add_task("evaluating", total=None, rate="", failed="")
        num_failed = 0

        def on_start(num_to_do: int, num_done: int, warnings: Sequence[str]) -> None:
            for warning in warnings:
                warn(f"warning: {warning}")
            bar.reset(task, total=num_to_do)
            if num_done:
                bar.console.print(f"going on: {num_done} videos are done, {num_to_do} are left", style="dim")

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
                failed=f"[red]{num_failed} failed[/]" if num_failed else "",
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
