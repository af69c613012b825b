"""The list of verbs. Nothing heavy is imported here, so that `--help` answers at once; verbs import what they need."""

from __future__ import annotations

from typing import Annotated

import typer

from vidprune import __version__
from vidprune.cli import bench, calibrate, demo, evaluate, flops, listing, predict, report, sweep, validate, visualize

app = typer.Typer(
    name="vidprune",
    help="Make off-the-shelf video ViTs fast without retraining: decode once, mark the tubelets that matter, run "
    "VideoMAE on those alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("predict")(predict.predict)
app.command("evaluate")(evaluate.evaluate)
app.command("sweep")(sweep.sweep)
app.command("report")(report.report)
app.command("visualize")(visualize.visualize)
app.command("flops")(flops.flops)
app.command("list")(listing.list_names)
app.command("validate")(validate.validate)
app.command("calibrate")(calibrate.calibrate)
app.command("demo")(demo.demo)
app.add_typer(bench.app, name="bench")


def _show_version(value: bool) -> None:
    if value:
        print(f"vidprune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; accepted anywhere.")] = False,
) -> None:
    """Handled in `vidprune.cli.main` (debug) and `_show_version`."""
