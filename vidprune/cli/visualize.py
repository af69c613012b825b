"""`vidprune visualize`: pictures of what is kept and of what the proposal saw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidprune.cli import flag_types as flag
from vidprune.cli import options as opt
from vidprune.errors import VidpruneError

if TYPE_CHECKING:
    from vidprune.config import RunConfig


@opt.spread(without=("num_crops", "views_per_batch"))  # the centre crop is drawn, a clip at a time
def visualize(
    inputs: Annotated[list[str], typer.Argument(help="Files, folders, patterns, or - for a list on stdin.")],
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("vidprune-pictures"),
    *,
    flags: opt.RunFlags,
    as_json: flag.Json = False,
) -> None:
    """Write a contact sheet (PNG) and an overlay video (MP4) of the kept tubelets and the proposal map of each video.

    Files that cannot be read are reported and the others still come out; the exit code is then 2.
    """
    run = flags.resolve()
    rows = _visualize_all(inputs, run, out, as_json)
    if any("error" in row for row in rows):
        raise typer.Exit(2)


def _visualize_all(inputs: list[str], run: RunConfig, out: Path, as_json: bool) -> list[dict[str, Any]]:
    from vidprune.cli.inputs import expand_inputs
    from vidprune.cli.screen import console, describe_run, progress, run_line, warn
    from vidprune.config import build_model, build_views
    from vidprune.labels import class_names as read_class_names
    from vidprune.pruning import host_of
    from vidprune.visualization.of_video import picture_video

    files = expand_inputs(inputs)
    module = build_model(run)
    plan = build_views(run, module)
    names = read_class_names(run.class_names, host_of(module).num_classes) if run.class_names else None
    if not as_json:
        console().print(run_line(describe_run(module, plan), run.model.name), style="dim", soft_wrap=True)
    stems = _unique_stems(files)
    rows: list[dict[str, Any]] = []
    with progress(files, "drawing") as paths:
        for path in paths:
            try:
                written = picture_video(
                    path,
                    module,
                    plan,
                    out,
                    class_names=names,
                    model_name=run.model.name,
                    stem=stems[path],
                    backend=run.backend,
                    colour=run.colour,
                )
            except VidpruneError as error:
                row = {"path": str(path), "error": str(error)}
                warn(f"error: {error}")
            else:
                row = {"path": str(path), "sheet": str(written.sheet), "overlay": str(written.overlay)}
                if not as_json:
                    console().print(f"{written.sheet}  {written.overlay}", markup=False, soft_wrap=True)
            if as_json:
                print(json.dumps(row), flush=True)
            rows.append(row)
    return rows


def _unique_stems(files: list[Path]) -> dict[Path, str]:
    """One file name per video: its stem, with its suffix or a number where two videos would share it."""
    stems: dict[Path, str] = {}
    for path in files:
        candidates = [path.stem, path.name.replace(".", "_")]
        candidates += [f"{path.stem}-{number}" for number in range(2, len(files) + 2)]
        stems[path] = next(name for name in candidates if name not in stems.values())
    return stems
