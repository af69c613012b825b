"""What a view costs on the clock: dense, and under each method, with the proposal's share told apart.

Published GFLOPs hide that a light network can take a large share of the time. So the times here are of whole forward
passes, proposal included, in turn in one process. Before anything is timed, the outputs are checked: every model must
give finite logits, the same twice, and each of its views the same in a batch as alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from vidprune.compiling import CompiledForward, is_compiled
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.inference import video_maps
from vidprune.models.frame_batch import FrameBatch
from vidprune.profiling.flops import flops
from vidprune.profiling.timing import Way, median_ratio, peak_memory_mib, time_in_turn
from vidprune.pruning import PrunedViT, input_shape, is_pruned
from vidprune.types import VideoFrames
from vidprune.video import ViewPlan, cut_views

TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6, torch.float16: 5e-2, torch.bfloat16: 2e-1}


@dataclass(frozen=True)
class ModelSpeed:
    """One model at one batch size.

    Attributes:
        ms_per_view: of the whole forward pass, median.
        speed_up: the dense model's time by this one's, median over rounds.
        gmacs, gmacs_reduction: per view, proposal included, and how many times fewer than dense; None where they depend
            on the input.
        proposal_ms: of the proposal's own pass, per view; 0 without one.
        share_of_bound: throughput, proposal included, by that of the host alone (embedding, then blocks, norm and head
            on as many tokens, compiled if the model is): 1 means that deciding and gathering cost nothing. None where
            methods act inside blocks.
        peak_mib: the most memory that one pass adds.
    """

    name: str
    batch: int
    ms_per_view: float
    views_per_s: float
    speed_up: float
    gmacs: float | None
    gmacs_reduction: float | None
    proposal_ms: float
    share_of_bound: float | None
    peak_mib: float | None


@torch.inference_mode()
def measure_models(
    models: Mapping[str, nn.Module],
    *,
    batch: int = 1,
    rounds: int = 9,
    warm_up: int = 2,
    video: VideoFrames | None = None,
    plan: ViewPlan | None = None,
) -> list[ModelSpeed]:
    """One row per model, in the order given; the first is what the others are compared with.

    Args:
        models: the dense host first, then pruned models of the same host, on one device in one dtype.
        video, plan: take the first `batch` views of this video; by default the input is noise. Proposals that look at a
            whole video need one, and their pass is shared out over all of its views.

    Raises:
        UnsupportedModelError: a model's outputs are not what they should be; nothing is timed then.
    """
    if batch < 1 or rounds < 1:
        raise ConfigError(f"batch and rounds must be at least 1, got {batch} and {rounds}")
    first = next(iter(models.values()))
    device = str(next(first.parameters()).device)
    pixels = _noise(first, batch) if video is None or plan is None else _views(first, video, plan, batch)
    ways: dict[str, Way] = {}
    apart: dict[str, int] = {}  # views that share a proposal's pass, where it runs apart from the model's
    for name, model in models.items():
        maps = None if video is None or plan is None else video_maps([video], model, plan)
        given = None if maps is None else maps[0][:batch]
        way = partial(model, pixels) if given is None else partial(model, pixels, given)
        check_outputs(name, model, pixels, given)
        ways[name] = way
        parts = _parts(model, pixels) if is_pruned(model) else {}
        if maps is not None and video is not None and plan is not None:
            parts["proposal"] = partial(video_maps, [video], model, plan)
            apart[name] = plan.num_views
        ways |= {f"{name}: {part}": way for part, way in parts.items()}
    seconds = time_in_turn(ways, rounds=rounds, warm_up=warm_up, device=device)
    peaks = {name: peak_memory_mib(ways[name], device) for name in models}
    timed = {name: _per_view(name, seconds, batch, apart.get(name)) for name in models}
    dense = timed[next(iter(models))]["all"]
    return [_row(name, model, batch, timed[name], dense, peaks[name]) for name, model in models.items()]


def _noise(model: nn.Module, batch: int) -> Tensor:
    like = next(model.parameters())
    shape = (batch, *input_shape(model)[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(like.device, like.dtype)


def _views(model: nn.Module, video: VideoFrames, plan: ViewPlan, batch: int) -> Tensor:
    if batch > plan.num_views:
        raise ConfigError(f"batch must be at most the {plan.num_views} views of the video, got {batch}")
    like = next(model.parameters())
    return cut_views(video, plan, device=like.device, dtype=like.dtype, views=slice(0, batch))


def _per_view(name: str, seconds: Mapping[str, list[float]], batch: int, apart: int | None) -> dict[str, list[float]]:
    """Seconds per view in every round: "all" of it, and of the "proposal" and the "bound" where there are such.

    `apart` is how many views share the proposal's pass, if the model's own does not hold it.
    """
    parts = {"all": [s / batch for s in seconds[name]]}
    if f"{name}: bound" in seconds:
        parts["bound"] = [s / batch for s in seconds[f"{name}: bound"]]
    if f"{name}: proposal" in seconds:
        parts["proposal"] = [s / (apart or batch) for s in seconds[f"{name}: proposal"]]
    if apart is not None:
        parts["all"] = [a + b for a, b in zip(parts["all"], parts["proposal"], strict=True)]
    return parts


def check_outputs(name: str, model: nn.Module, pixels: Tensor, maps: Tensor | None = None) -> None:
    """Raises `UnsupportedModelError` unless logits are finite, repeat, and do not depend on the rest of the batch."""
    given, given_alone = ((), ()) if maps is None else ((maps,), (maps[:1],))
    logits, again, alone = model(pixels, *given), model(pixels, *given), model(pixels[:1], *given_alone)
    tolerance = TOLERANCE.get(logits.dtype, 1e-3) * max(1.0, float(logits.abs().max()))
    if not logits.isfinite().all():
        raise UnsupportedModelError(f"{name}: logits are not finite, so its time means nothing; try another dtype")
    for what, other in (("a second pass", again), ("the first view alone", alone)):
        gap = float((logits[: len(other)] - other).abs().max())
        if gap > tolerance:
            raise UnsupportedModelError(f"{name}: {what} differs by {gap:.2g}, allowed is {tolerance:.2g}; not timed")


def _parts(model: PrunedViT | FrameBatch, pixels: Tensor) -> dict[str, Way]:
    """The proposal alone, and the bound: what the host alone would take on as many tokens."""
    parts: dict[str, Way] = {}
    proposal, grid = model.proposal, model.token_grid
    if proposal is not None:
        clip = pixels if pixels.ndim == 5 else pixels.unsqueeze(2)
        parts["proposal"] = lambda: proposal(clip, grid=grid)
    if isinstance(model, PrunedViT) and model.block_step is None and flops_or_none(model) is not None:
        host = model.host
        width, count = int(host.embed_dim), int(host.num_prefix_tokens) + model.num_kept()
        tokens = torch.randn(len(pixels), count, width, device=pixels.device, dtype=pixels.dtype)

        def bound(pixels: Tensor) -> tuple[Tensor, Tensor]:  # both are handed on, or a compiler would leave one out
            return host.patch_embed(pixels), host.forward_head(host.norm(host.blocks(tokens)))

        way = CompiledForward(bound, backend="inductor", graphs=pixels.is_cuda) if is_compiled(model) else bound
        parts["bound"] = partial(way, pixels)
    return parts


def _row(
    name: str,
    model: nn.Module,
    batch: int,
    timed: Mapping[str, list[float]],
    dense: list[float],
    peak_mib: float | None,
) -> ModelSpeed:
    median = statistics.median(timed["all"])
    cost = flops_or_none(model)
    return ModelSpeed(
        name=name,
        batch=batch,
        ms_per_view=1e3 * median,
        views_per_s=1 / median,
        speed_up=median_ratio(dense, timed["all"]),
        gmacs=None if cost is None else cost[0],
        gmacs_reduction=None if cost is None else cost[1],
        proposal_ms=1e3 * statistics.median(timed["proposal"]) if "proposal" in timed else 0.0,
        share_of_bound=median_ratio(timed["bound"], timed["all"]) if "bound" in timed else None,
        peak_mib=peak_mib,
    )


def flops_or_none(model: nn.Module) -> tuple[float, float] | None:
    """GMACs per view and the reduction against dense; None where they depend on the input."""
    report = flops(model)
    return None if report.depends_on_input else (report.total_gmacs, report.reduction)
