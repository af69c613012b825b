"""The list of verbs. Nothing heavy is imported here, so that `--help` answers at once; verbs import what they need."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any

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
VERBS: dict[str, Callable[..., Any]] = {  # in the order of the help: look, ask, measure, and the rest
    "demo": demo.demo,
    "predict": predict.predict,
    "visualize": visualize.visualize,
    "validate": validate.validate,
    "evaluate": evaluate.evaluate,
    "sweep": sweep.sweep,
    "report": report.report,
    "flops": flops.flops,
    "calibrate": calibrate.calibrate,
    "list": listing.list_names,
}
for _name, _verb in VERBS.items():
    _paragraphs = (inspect.getdoc(_verb) or "").split("\n\n")
    app.command(_name, help="\n\n".join(" ".join(one.split()) for one in _paragraphs))(_verb)  # as wide as the screen
app.add_typer(bench.app, name="bench")


def _show_version(value: bool) -> None:
    if value:
        print(f"vidprune {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; accepted anywhere.")] = False,
) -> None:
    """Handled in `vidprune.cli.main` (debug) and `_show_version`."""
