"""`vidprune predict`: top classes of video files."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, Any

import typer

from vidprune.cli import options as opt
from vidprune.errors import ConfigError, VidpruneError

if TYPE_CHECKING:
    from vidprune.config import RunConfig


@opt.spread()
def predict(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, patterns, or - for a list on stdin.")],
    *,
    flags: opt.RunFlags,
    top: Annotated[int, typer.Option(min=1, help="Classes per video.")] = 5,
    out: Annotated[Path | None, typer.Option(help="Also write one JSON line per video to this file.")] = None,
    as_json: opt.Json = False,
) -> None:
    """Predict the class of videos: each is decoded once, pruned, and its 5x3 views become one prediction.

    Files that cannot be read are reported and the others still come out; the exit code is then 2.
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
    from vidprune.cli.screen import console, describe_run, progress, run_line, warn
    from vidprune.config import build_model, build_views
    from vidprune.inference import predict_video
    from vidprune.labels import class_names as read_class_names
    from vidprune.pruning import host_of

    files = expand_inputs(inputs)
    module = build_model(run)
    plan = build_views(run, module)
    names = read_class_names(run.class_names, host_of(module).num_classes) if run.class_names else None
    facts = {"model": run.model.name} | describe_run(module, plan)
    if not as_json:
        console().print(run_line(facts, run.model.name), style="dim", soft_wrap=True)
    sink = _open_sink(out)
    rows = []
    with progress(files, "predicting") as paths:
        for path in paths:
            start = time.perf_counter()
            try:
                prediction = predict_video(
                    path,
                    module,
                    plan,
                    class_names=names,
                    backend=run.backend,
                    colour=run.colour,
                    views_per_batch=run.views_per_batch,
                )
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
            _emit(row, sink, as_json)
    if sink is not None:
        sink.close()
    return rows


def _print_row(row: dict[str, Any]) -> None:
    from rich.markup import escape

    from vidprune.cli.screen import console

    screen = console()
    note = f"  [yellow]{row['num_errors']} damaged packets or frames, {row['num_filled']} frames filled in[/]"
    damaged = row["num_errors"] or row["num_filled"]
    screen.print(f"[bold]{escape(row['path'])}[/]  {row['seconds']:.1f} s{note if damaged else ''}", soft_wrap=True)
    for rank, score in enumerate(row["top"], start=1):
        screen.print(f"  {rank}  {score['prob']:7.2%}  {escape(score['name'])} [dim]({score['index']})[/]")


def _open_sink(out: Path | None) -> IO[str] | None:
    if out is None:
        return None
    try:
        return out.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot write {out}: {error.strerror}; name a file in an existing, writable folder"
        ) from None


def _emit(row: dict[str, Any], sink: IO[str] | None, as_json: bool) -> None:
    line = json.dumps(row, ensure_ascii=False)
    if as_json:
        print(line, flush=True)
    if sink is not None:
        try:
            sink.write(line + "\n")
            sink.flush()  # what is computed is kept, whatever happens to the next file
        except OSError as error:
            raise ConfigError(
                f"cannot write {sink.name}: {error.strerror}; rows before this one are complete"
            ) from None
