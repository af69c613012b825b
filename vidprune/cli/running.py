"""What long runs over many videos share on the screen: progress, a notice to leave, and a verdict on failures."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from vidprune.evaluation.report import EvaluationReport
    from vidprune.evaluation.store import Row


@contextmanager
def notice_to_leave() -> Iterator[None]:
    """SIGTERM, a scheduler's notice, acts as Ctrl-C does: what is computed is stored first."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def video_progress(verb: str) -> Iterator[tuple[Callable[[int, int, Sequence[str]], None], Callable[[Row], None]]]:
    """A bar on stderr with rate, time left and failures; silent where stderr is no terminal."""
    from vidprune.cli.screen import progress_bar, warn

    with progress_bar("rate", "failed", silent=os.environ.get("RANK", "0") != "0") as bar:
        task = bar.add_task(verb, total=None, rate="", failed="")
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


def judge(report: EvaluationReport, max_failed: int) -> None:
    """Leave with exit code 2 where more videos failed than are allowed, and name the first."""
    from vidprune.cli.screen import warn

    if report.num_failed <= max_failed:
        return
    for failure in report.failures[:5]:
        warn(f"failed: {failure.reason}")
    warn(
        f"{report.num_failed} videos failed, --max-failed allows {max_failed}; all are named in "
        f"{Path(report.run) / 'predictions.csv'}; the same command with --retry-failed tries them again"
    )
    raise typer.Exit(2)
