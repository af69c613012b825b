"""`vidprune calibrate`: what STAR needs to know of a host, from its answers on some videos or images."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vidprune.cli import flag_types as flag
from vidprune.errors import VidpruneError

if TYPE_CHECKING:
    from torch import Tensor

    from vidprune.pruners.calibration import Calibration


def calibrate(
    inputs: Annotated[list[str], typer.Argument(help="Videos, or images for an image model: files, folders, ...")],
    out: Annotated[Path, typer.Option(help="The .npz file to write.")],
    model: flag.Model = None,
    checkpoint: flag.Checkpoint = None,
    scores: Annotated[str, typer.Option(help="rollout, lrp, or an .npy file of your own scores [L, N].")] = "rollout",
    num_classes: Annotated[int, typer.Option(min=1, help="Most probable classes averaged per input.")] = 6,
    limit: Annotated[int, typer.Option(min=1, help="At most so many files, drawn at random.")] = 500,
    num_segments: Annotated[int, typer.Option(min=1, help="Temporal segments per video.")] = 1,
    num_crops: Annotated[int, typer.Option(min=1, help="Spatial crops per segment.")] = 1,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs per pass; all attention is kept in memory.")] = 1,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    device: flag.Device = None,
    backend: flag.Backend = None,
    as_json: flag.Json = False,
) -> None:
    """Measure on some inputs which tokens matter to a model's answer, for the methods star and adaptive_star.

    Use the file as `--method star --method-option calibration=FILE.npz`, in Python as `vp.STAR(..., calibration=FILE)`.

    Files that cannot be read are reported and left out; the exit code is then 2.
    """
    from vidprune.calibration import calibrate as average
    from vidprune.calibration.averaging import METHODS
    from vidprune.calibration.inputs import IMAGE_SUFFIXES, read_inputs, read_scores
    from vidprune.cli.inputs import expand_inputs
    from vidprune.cli.screen import progress
    from vidprune.config import ModelConfig, RunConfig, build_model
    from vidprune.evaluation.manifests import VIDEO_SUFFIXES
    from vidprune.models.videomae import VideoMAE

    start = time.perf_counter()
    run = RunConfig(model=ModelConfig(model or ModelConfig.name, checkpoint), device=device or RunConfig.device)
    inter = None if scores in METHODS else read_scores(scores)
    host: Any = build_model(run)
    files = expand_inputs(inputs, VIDEO_SUFFIXES if isinstance(host, VideoMAE) else IMAGE_SUFFIXES)
    random.Random(seed).shuffle(files)
    failed: list[Path] = []
    sampling: Any = {"num_segments": num_segments, "num_crops": num_crops, "backend": backend or RunConfig.backend}
    with progress(files[:limit], "calibrating") as paths:
        calibration = average(
            host,
            _batches(_readable(paths, lambda path: read_inputs(path, host, **sampling), failed), batch_size),
            method=scores if inter is None else METHODS[0],
            num_classes=num_classes,
            inter=inter,
            name=run.model.name,
        )
    calibration.save(out)
    _show(calibration, out, len(failed), time.perf_counter() - start, as_json)
    if failed:
        raise typer.Exit(2)


def _readable(paths: Iterable[Path], read: Callable[[Path], Tensor], failed: list[Path]) -> Iterator[Tensor]:
    """What `read` makes of each path; the others are reported and noted in `failed`."""
    from vidprune.cli.screen import warn

    for path in paths:
        try:
            yield read(path)
        except VidpruneError as error:
            warn(f"error: {error}")
            failed.append(path)


def _batches(inputs: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Batches of `size` from inputs [V, ...] of any V; the last may be smaller."""
    import torch

    waiting: list[Tensor] = []
    for found in inputs:
        waiting += found
        while len(waiting) >= size:
            yield torch.stack(waiting[:size])
            waiting = waiting[size:]
    if waiting:
        yield torch.stack(waiting)


def _show(calibration: Calibration, out: Path, num_failed: int, seconds: float, as_json: bool) -> None:
    from vidprune.cli.screen import console

    facts = {
        "out": str(out),
        "host": calibration.host,
        "method": calibration.method,
        "grid": list(calibration.grid.shape),
        "num_inputs": calibration.num_inputs,
        "num_classes": calibration.num_classes,
        "num_failed": num_failed,
        "similarity": [round(float(value), 6) for value in calibration.similarity],
        "seconds": round(seconds, 3),
    }
    if as_json:
        print(json.dumps(facts))
        return
    screen = console()
    screen.print(
        f"{calibration.host}: {calibration.depth} blocks, token grid {calibration.grid.shape}, scores by "
        f"{calibration.method} from {calibration.num_inputs} inputs in {seconds:.1f} s",
        soft_wrap=True,
    )
    screen.print("similarity per block " + " ".join(f"{value:.3f}" for value in calibration.similarity), soft_wrap=True)
    screen.print(f"written to {out}", soft_wrap=True)
