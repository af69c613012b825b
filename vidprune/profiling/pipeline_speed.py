"""Whether decoding, transfer and the model overlap: the throughput of a whole evaluation against its slowest stage.

Three runs over the same videos: decoding alone (the same worker processes, nothing done with the frames), the model
alone (one decoded video again and again), and the evaluation itself, store included. With an accelerator the stages run
on different hardware and the evaluation can come close to the slower one. On a CPU they share its cores, so there the
fair bound is the sum of what both take (`shared_cores_videos_per_s`).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn

from vidprune.errors import VideoDecodeError
from vidprune.evaluation.decoding import decode_all
from vidprune.evaluation.manifests import ManifestEntry
from vidprune.evaluation.runner import RunnerSettings, run_entries
from vidprune.evaluation.store import PredictionStore, Row
from vidprune.inference import predict_views, reader_for, video_maps
from vidprune.profiling.timing import synchronize
from vidprune.pruning import is_pruned
from vidprune.types import VideoFrames
from vidprune.video import ViewPlan, cut_views


@dataclass(frozen=True)
class PipelineSpeed:
    """One evaluation.

    Attributes:
        decode_videos_per_s, model_videos_per_s: of each stage alone.
        videos_per_s: of the evaluation, from the first decoded video to the last row.
        share_of_slowest: the evaluation's throughput by the slower stage's.
        shared_cores_videos_per_s: the bound where both stages use the same cores, from their CPU seconds; None on an
            accelerator.
        decode_ms, transfer_ms, proposal_ms, vit_ms: where a video's time goes: in its worker; upload, crops and
            normalisation; the proposal; the rest of the forward passes.
        wait_share: part of the evaluation's time in which the model waited for frames.
    """

    name: str
    workers: int
    num_videos: int
    views: int
    decode_videos_per_s: float
    model_videos_per_s: float
    videos_per_s: float
    share_of_slowest: float
    shared_cores_videos_per_s: float | None
    decode_ms: float
    transfer_ms: float
    proposal_ms: float
    vit_ms: float
    wait_share: float


def measure_pipeline(
    name: str,
    model: nn.Module,
    plan: ViewPlan,
    files: Sequence[Path],
    *,
    workers: int,
    views_per_batch: int | None = None,
    backend: str = "pyav",
) -> PipelineSpeed:
    """Evaluate `files` (repeat them for a longer run) and its stages alone.

    Raises:
        VideoDecodeError: one of the files cannot be decoded.
    """
    device = str(next(model.parameters()).device)
    decode = reader_for([model], plan, backend=backend)
    videos_per_s, decode_cpu_s, sample = _decode_alone(files, decode, workers)
    predict_views([sample], model, plan, views_per_batch=views_per_batch)  # warm up
    model_s = _seconds(lambda: predict_views([sample], model, plan, views_per_batch=views_per_batch), device)
    transfer_s, proposal_s = _parts(model, plan, sample, device)
    whole_s, rows = _evaluate(files, model, plan, RunnerSettings(workers, views_per_batch=views_per_batch), decode)
    slowest = min(videos_per_s, 1 / model_s)
    cores = len(os.sched_getaffinity(0))
    busy_s = decode_cpu_s + model_s * min(cores, torch.get_num_threads())  # core-seconds per video
    achieved = len(files) / whole_s
    return PipelineSpeed(
        name=name,
        workers=workers,
        num_videos=len(files),
        views=plan.num_views,
        decode_videos_per_s=videos_per_s,
        model_videos_per_s=1 / model_s,
        videos_per_s=achieved,
        share_of_slowest=achieved / slowest,
        shared_cores_videos_per_s=cores / busy_s if device == "cpu" else None,
        decode_ms=1e3 * statistics.median(row.decode_s or 0.0 for row in rows),
        transfer_ms=1e3 * transfer_s,
        proposal_ms=1e3 * proposal_s,
        vit_ms=1e3 * max(0.0, model_s - transfer_s - proposal_s),
        wait_share=max(0.0, 1 - sum(row.model_s or 0.0 for row in rows) / whole_s),
    )


def _decode_alone(
    files: Sequence[Path], decode: partial[VideoFrames], workers: int
) -> tuple[float, float, VideoFrames]:
    """Videos per second from the first result on (workers have started by then), seconds per video, one video."""
    start, num_done, seconds, sample = 0.0, 0, 0.0, None
    for item in decode_all(decode, ((i, str(file)) for i, file in enumerate(files)), workers=workers, timeout_s=120.0):
        if item.video is None:
            raise VideoDecodeError(item.error or "no frames")
        if sample is None:
            sample, start = item.video, time.perf_counter()
        else:
            num_done += 1
        seconds += item.seconds
    if sample is None or num_done == 0:
        raise VideoDecodeError("a pipeline is measured on at least two videos; name more, or repeat them")
    return num_done / (time.perf_counter() - start), seconds / len(files), sample


def _parts(model: nn.Module, plan: ViewPlan, video: VideoFrames, device: str) -> tuple[float, float]:
    """Seconds per video of upload with crops and normalisation, and of the proposal."""
    like = next(model.parameters())
    transfer_s = _seconds(lambda: cut_views(video, plan, device=like.device, dtype=like.dtype), device)
    proposal = model.proposal if is_pruned(model) else None
    if proposal is None or not is_pruned(model):
        return transfer_s, 0.0
    maps = video_maps([video], model, plan)
    if maps is not None:
        return transfer_s, _seconds(lambda: video_maps([video], model, plan), device)
    views = cut_views(video, plan, device=like.device, dtype=like.dtype)
    with torch.inference_mode():
        return transfer_s, _seconds(lambda: proposal(views, grid=model.token_grid), device)


def _seconds(way: object, device: str, rounds: int = 3) -> float:
    spent = []
    for _ in range(rounds):
        synchronize(device)
        start = time.perf_counter()
        way()  # type: ignore[operator]
        synchronize(device)
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


def _evaluate(
    files: Sequence[Path], model: nn.Module, plan: ViewPlan, settings: RunnerSettings, decode: partial[VideoFrames]
) -> tuple[float, list[Row]]:
    """Seconds from the first row to the last, scaled to all files, and the rows."""
    entries = [(i, ManifestEntry(video_id=str(i), path=file, label=None)) for i, file in enumerate(files)]
    rows: list[Row] = []
    times: list[float] = []

    def note(row: Row) -> None:
        rows.append(row)
        times.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        store = PredictionStore.create_or_resume(folder, {"bench": True})
        run_entries(entries, model, plan, store, settings, decode=decode, on_row=note)
    return (times[-1] - times[0]) * len(files) / (len(files) - 1), rows
