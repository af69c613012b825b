"""`vidprune bench decode|model|pipeline`: what time goes where on this machine, checked before it is timed."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidprune.cli import options as opt
from vidprune.config import DEMO, ModelConfig, RunConfig
from vidprune.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import nn

app = typer.Typer(
    help="Measure decoding, models, or a whole evaluation: medians of runs in turn.", no_args_is_help=True
)

Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="A method and its fields, such as 'papr keep_ratio=.45 proposal=x3d_s' or 'papr keep_ratio=.55 + tome "
        "r=40'; repeat for more rows. Dense is always the first.",
    ),
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Also write the rows here, with command, device, versions.")]
Rounds = Annotated[int, typer.Option(help="Timed rounds; figures are medians over them.")]
HEADERS = {
    "num_frames": "frames",
    "num_wanted": "wanted",
    "num_decoded": "decoded",
    "cpu_ms": "CPU ms",
    "ms_per_view": "ms/view",
    "views_per_s": "views/s",
    "speed_up": "speed",
    "gmacs_reduction": "fewer",
    "proposal_ms": "prop. ms",
    "share_of_bound": "of bound",
    "peak_mib": "MiB",
    "mean_gap": "gap",
    "psnr_db": "PSNR",
    "num_videos": "videos",
    "decode_videos_per_s": "decode/s",
    "model_videos_per_s": "model/s",
    "videos_per_s": "all/s",
    "share_of_slowest": "of slowest",
    "shared_cores_videos_per_s": "shared/s",
    "decode_ms": "decode ms",
    "transfer_ms": "transfer",
    "vit_ms": "ViT ms",
    "wait_share": "waiting",
}
"""Columns on the screen; --json and --csv have the full names."""
DEFAULT_METHODS = ("papr keep_ratio=.45", "random keep_ratio=.45")


@app.command("decode")
def decode(
    inputs: Annotated[list[str], typer.Argument(help="Videos, folders, patterns, or demo:N.")],
    rounds: Rounds = 7,
    csv: Csv = None,
    as_json: opt.Json = False,
) -> None:
    """CPU time of reading the 5x3 views' frames, by every decoder, against decoding alone."""
    from vidprune.cli.inputs import expand_inputs
    from vidprune.cli.screen import progress, warn
    from vidprune.errors import VideoDecodeError
    from vidprune.profiling.decode_speed import DecodeSpeed, measure_decode
    from vidprune.video import ViewPlan

    rows: list[DecodeSpeed] = []
    with progress(expand_inputs(inputs), "decode") as files:
        for file in files:
            try:
                rows += measure_decode(file, ViewPlan(), rounds=rounds)
            except VideoDecodeError as error:
                warn(f"left out: {error}")
    _show(rows, "Decoding: CPU time per video, ratio to decoding alone", csv, as_json, "cpu")


@app.command("model")
def model(
    model: opt.Model = None,
    checkpoint: opt.Checkpoint = None,
    method: Methods = None,
    batch: Annotated[list[int] | None, typer.Option(help="Views per pass; repeat for more rows.")] = None,
    video: Annotated[
        str | None, typer.Option(help="Take views of this file, not noise; proposals of whole videos need one.")
    ] = None,
    rounds: Rounds = 9,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    compile: opt.Compile = None,
    csv: Csv = None,
    as_json: opt.Json = False,
) -> None:
    """Milliseconds per view, dense and under each method, proposal included; outputs are checked first."""
    from vidprune.cli.inputs import expand_inputs
    from vidprune.config import build_views
    from vidprune.inference import reader_for
    from vidprune.profiling.model_speed import measure_models

    run = _run(model, checkpoint, device, dtype, compile)
    models = build_models(run, method or DEFAULT_METHODS)
    frames = plan = None
    if video is not None:
        (file,) = expand_inputs([video])
        plan = build_views(run, models["dense"])
        frames = reader_for(list(models.values()), plan)(file)
    rows = [
        row
        for size in batch or [1]
        for row in measure_models(models, batch=size, rounds=rounds, video=frames, plan=plan)
    ]
    _show(rows, f"{run.model.name}: time per view", csv, as_json, _device_of(models))


@app.command("pipeline")
def pipeline(
    inputs: Annotated[list[str], typer.Argument(help="Videos, folders, patterns, or demo.")],
    model: opt.Model = None,
    checkpoint: opt.Checkpoint = None,
    method: Methods = None,
    num_videos: Annotated[int, typer.Option(help="Videos per run; the inputs are repeated up to it.")] = 32,
    workers: Annotated[list[int] | None, typer.Option(help="Decode processes; repeat for more rows.")] = None,
    views_per_batch: Annotated[int | None, typer.Option(help="Views per pass; by default one video's.")] = None,
    device: opt.Device = None,
    dtype: opt.Dtype = None,
    compile: opt.Compile = None,
    csv: Csv = None,
    as_json: opt.Json = False,
) -> None:
    """Throughput of an evaluation against its slowest stage, and where a video's time goes."""
    from vidprune.cli.inputs import expand_inputs
    from vidprune.config import build_views
    from vidprune.profiling.pipeline_speed import measure_pipeline

    files = expand_inputs(inputs)
    if num_videos < 2:
        raise ConfigError(f"num-videos must be at least 2, got {num_videos}")
    repeated = [files[i % len(files)] for i in range(num_videos)]
    run = _run(model, checkpoint, device, dtype, compile)
    models = build_models(run, method or DEFAULT_METHODS)
    plan = build_views(run, next(iter(models.values())))
    rows = [
        measure_pipeline(name, one, plan, repeated, workers=number, views_per_batch=views_per_batch)
        for number in workers or [1]
        for name, one in models.items()
    ]
    _show(rows, f"{run.model.name}: an evaluation and its stages alone", csv, as_json, _device_of(models))


def build_models(run: RunConfig, methods: Sequence[str]) -> dict[str, nn.Module]:
    """The dense host and, around it, one pruned model for every method given as text; compiled if so told."""
    import torch

    from vidprune.compiling import compile_model
    from vidprune.config import build_method, build_model
    from vidprune.pruning import prune

    host = build_model(replace(run, method={"name": "dense"}, compile=False))
    like = next(host.parameters())
    models: dict[str, nn.Module] = {"dense": host}
    for text in methods:
        steps = [build_method(fields, run.model) for fields in parse_methods(text)]
        pruners = [step for step in steps if step is not None]
        if not pruners:
            continue  # "dense" is there already
        torch.manual_seed(run.seed)
        models[" ".join(text.split())] = prune(host, pruners).to(like.device, like.dtype).eval()
    return {name: compile_model(one) for name, one in models.items()} if run.compile else models


def parse_methods(text: str) -> list[dict[str, Any]]:
    """'papr keep_ratio=.55 + tome r=40' -> one mapping per method of the chain."""
    chain = []
    for part in text.split(" + "):
        name, *fields = part.split()
        chain.append(opt.method_fields(name, fields))
    return chain


def _run(
    model: str | None, checkpoint: str | None, device: str | None, dtype: str | None, compile: bool | None
) -> RunConfig:
    name = model or DEMO
    return RunConfig(
        model=ModelConfig(name, checkpoint), device=device or "auto", dtype=dtype or "float32", compile=bool(compile)
    )


def _device_of(models: dict[str, nn.Module]) -> str:
    return str(next(next(iter(models.values())).parameters()).device)


def _show(rows: Sequence[DataclassInstance], title: str, csv: Path | None, as_json: bool, device: str) -> None:
    from rich.table import Table

    from vidprune.cli.screen import console
    from vidprune.profiling.measured_csv import versions, write_measured
    from vidprune.profiling.timing import machine

    if not rows:
        raise ConfigError("nothing was measured")
    if csv is not None:
        write_measured(csv, rows, command=["vidprune", *sys.argv[1:]], machine=machine(device))
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row) | {"machine": machine(device), "versions": versions()}))
        return
    table = Table(title=f"{title} ({machine(device)})", title_justify="left")
    for name, value in asdict(rows[0]).items():
        is_text = isinstance(value, str)
        table.add_column(
            HEADERS.get(name, name), justify="left" if is_text else "right", overflow="fold", no_wrap=not is_text
        )
    for row in rows:
        table.add_row(*(_cell(value) for value in asdict(row).values()))
    screen = console()
    if not screen.is_terminal:  # a file or a pipe has no width to keep to
        screen.width = max(screen.width, 200)
    screen.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
