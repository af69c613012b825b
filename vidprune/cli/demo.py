"""`vidprune demo`: the whole path on the shipped model and clips."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vidprune.cli import flag_types as flag

if TYPE_CHECKING:
    from vidprune.demo import DemoRow


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("vidprune-demo"),
    num_clips: Annotated[int | None, typer.Option(min=1, help="Use only the first clips.")] = None,
    num_pictures: Annotated[int, typer.Option(min=0, help="Clips to draw.")] = 3,
    as_json: flag.Json = False,
) -> None:
    """Compare dense, PaPr, random and frame difference on shipped held-out clips, 5x3 views each; draw what is kept.

    The clips show a handwritten digit that acts (its digit and motion are the class) among drifting digits under a
    moving camera; the models were trained on renders of other digits. No download, no GPU, under three minutes.
    """
    from vidprune.cli.screen import console, progress
    from vidprune.demo import build_variants, evaluate_clips, load_clips, summarise
    from vidprune.inference import plan_for

    clips = load_clips()[:num_clips]
    variants = build_variants()
    plan = plan_for(variants[0].model)
    with progress(clips, "evaluating") as bar:
        results = list(evaluate_clips(bar, variants, plan))
    rows = summarise(results, variants, plan.num_views)
    pictures = _draw([clip.path for clip in clips[:num_pictures]], out)
    if as_json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "pictures": [str(p) for p in pictures]}))
        return
    _print_table(rows)
    if pictures:
        console().print(f"pictures: {', '.join(str(p) for p in pictures)}", markup=False, soft_wrap=True)


def _draw(paths: list[Path], out: Path) -> list[Path]:
    from vidprune.config import DEMO, ModelConfig, RunConfig, build_model
    from vidprune.inference import plan_for
    from vidprune.labels import class_names
    from vidprune.visualization.of_video import picture_video

    if not paths:
        return []
    model = build_model(RunConfig(model=ModelConfig(DEMO), method={"name": "papr", "keep_ratio": 0.3}, device="cpu"))
    written = [
        picture_video(path, model, plan_for(model), out, class_names=class_names(DEMO), model_name="demo")
        for path in paths
    ]
    return [file for pair in written for file in (pair.sheet, pair.overlay)]


def _print_table(rows: list[DemoRow]) -> None:
    from rich import box
    from rich.table import Table

    from vidprune.cli.screen import console

    first = rows[0]
    table = Table(
        title=f"{first.num_clips} held-out clips, 5x3 views of {first.num_kept} tokens; times on this machine",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 0, 0, 1),
    )
    for header in ("method", "z", "top-1", "95 %", "actor", "GMACs", "ms/view", "speed", "proposal"):
        table.add_column(header, justify="left" if header == "method" else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.method.replace("frame_difference", "frame diff."),
            f"{row.keep_ratio:g}",
            f"{row.top1:.1%}",
            f"{row.top1_low:.0%}-{row.top1_high:.0%}",
            f"{row.actor_coverage:.0%}",
            f"{row.total_gmacs:.3f}",
            f"{row.ms_per_view:.2f}",
            f"{row.speed_up:.2f}x",
            f"{row.proposal_share:.0%}" if row.method != "dense" else "-",
        )
    console().print(table)
    console().print(
        "z: tokens kept. actor: the acting digit's pixels in them. GMACs, time and speed\n"
        "are per view and include the proposal, whose share of the time comes last.",
        style="dim",
    )
