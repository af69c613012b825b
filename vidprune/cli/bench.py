"""`vidprune bench decode|model|pipeline`: what time goes where on this machine, checked before it is timed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidprune.cli import flag_types as flag
from vidprune.cli import options as opt
from vidprune.cli.bench_table import show
from vidprune.config import DEMO, ModelConfig, RunConfig
from vidprune.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

app = typer.Typer(
    help="Measure decoding, models, or a whole evaluation: medians of runs in turn.", no_args_is_help=True
)

Model = Annotated[str | None, typer.Option(help="Model name, see `vidprune list models`.", show_default=DEMO)]
Methods = Annotated[
    list[str] | None,
    typer.Option(
        "--method",
        help="A method and its fields, such as 'papr keep_ratio=.45 proposal=x3d_s' or 'papr keep_ratio=.55 + tome "
        "r=40'; repeat for more rows. Dense is always the first.",
        show_default="papr and random at .45",
    ),
]
Csv = Annotated[
    Path | None,
    typer.Option("--csv", help="Also write the rows to this file (replaced), with command, device, versions."),
]
Rounds = Annotated[int, typer.Option(help="Timed rounds; figures are medians over them.")]
DEFAULT_METHODS = ("papr keep_ratio=.45", "random keep_ratio=.45")


@app.command("decode")
def decode(
    inputs: Annotated[list[str], typer.Argument(help="Videos, folders, patterns, or demo:N.")],
    rounds: Rounds = 7,
    csv: Csv = None,
    as_json: flag.Json = False,
) -> None:
    """CPU time of reading the 5x3 views' frames, by every decoder, against decoding alone."""
    from vidprune.cli.inputs import expand_inputs
    from vidprune.cli.outputs import prepare_file
    from vidprune.cli.screen import progress, warn
    from vidprune.errors import VideoDecodeError
    from vidprune.profiling.decode_speed import DecodeSpeed, measure_decode
    from vidprune.video import ViewPlan

    prepare_file(csv)
    rows: list[DecodeSpeed] = []
    with progress(expand_inputs(inputs), "decode") as files:
        for file in files:
            try:
                rows += measure_decode(file, ViewPlan(), rounds=rounds)
            except VideoDecodeError as error:
                warn(f"left out: {error}")
    show("decode", rows, "Decoding: CPU time per video", csv=csv, as_json=as_json, device="cpu")


@app.command("model")
def model(
    model: Model = None,
    checkpoint: flag.Checkpoint = None,
    method: Methods = None,
    batch: Annotated[
        list[int] | None, typer.Option(help="Views per pass; repeat for more rows.", show_default="1")
    ] = None,
    video: Annotated[
        str | None, typer.Option(help="Take views of this file, not noise; proposals of whole videos need one.")
    ] = None,
    rounds: Rounds = 9,
    device: flag.Device = None,
    dtype: flag.Dtype = None,
    compile: flag.Compile = None,
    csv: Csv = None,
    as_json: flag.Json = False,
) -> None:
    """Milliseconds per view, dense and under each method, proposal included; outputs are checked first."""
    from vidprune.cli.inputs import expand_inputs
    from vidprune.cli.outputs import prepare_file
    from vidprune.config import build_views
    from vidprune.inference import reader_for
    from vidprune.profiling.model_speed import measure_models

    run = _run(model, checkpoint, device, dtype, compile)
    prepare_file(csv)
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
    show("model", rows, f"{_title(models, run)}: time per view", csv=csv, as_json=as_json, device=_device_of(models))


@app.command("pipeline")
def pipeline(
    inputs: Annotated[list[str], typer.Argument(help="Videos, folders, patterns, or demo.")],
    model: Model = None,
    checkpoint: flag.Checkpoint = None,
    method: Methods = None,
    num_videos: Annotated[int, typer.Option(help="Videos per run; the inputs are repeated up to it.")] = 32,
    workers: Annotated[
        list[int] | None, typer.Option(help="Decode processes; repeat for more rows.", show_default="1")
    ] = None,
    views_per_batch: Annotated[int | None, typer.Option(help="Views per pass.", show_default="one video's")] = None,
    device: flag.Device = None,
    dtype: flag.Dtype = None,
    compile: flag.Compile = None,
    csv: Csv = None,
    as_json: flag.Json = False,
) -> None:
    """Throughput of an evaluation against its slowest stage, and where a video's time goes."""
    from vidprune.cli.inputs import expand_inputs
    from vidprune.cli.outputs import prepare_file
    from vidprune.config import build_views
    from vidprune.profiling.pipeline_speed import measure_pipeline

    files = expand_inputs(inputs)
    if num_videos < 2:
        raise ConfigError(f"num-videos must be at least 2, got {num_videos}")
    repeated = [files[i % len(files)] for i in range(num_videos)]
    run = _run(model, checkpoint, device, dtype, compile)
    prepare_file(csv)
    models = build_models(run, method or DEFAULT_METHODS)
    plan = build_views(run, next(iter(models.values())))
    rows = [
        measure_pipeline(name, one, plan, repeated, workers=number, views_per_batch=views_per_batch)
        for number in workers or [1]
        for name, one in models.items()
    ]
    title = f"{_title(models, run)}: an evaluation and its stages alone"
    show("pipeline", rows, title, csv=csv, as_json=as_json, device=_device_of(models))


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
    for part in re.split(r"\s*\+\s*(?=[a-z_]+(?:\s|$))", text.strip()):  # not the + of 1e+2
        if not part:
            raise ConfigError(f"--method takes a name and its fields, such as 'papr keep_ratio=.45', got {text!r}")
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


def _title(models: dict[str, nn.Module], run: RunConfig) -> str:
    weights = "" if getattr(models["dense"], "checkpoint_source", None) else ", random weights"
    return f"{run.model.name}, {run.dtype}{weights}"


def _device_of(models: dict[str, nn.Module]) -> str:
    return str(next(next(iter(models.values())).parameters()).device)
