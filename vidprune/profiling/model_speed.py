"""What a view costs on the clock: dense, and under each method, with the proposal's share told apart.

Published GFLOPs hide that a light network can take a large share of the time. So the times here are of whole forward
passes, proposal included, in turn in one process. Before anything is timed, the outputs are checked: every model must
give finite logits, the same twice, and each of its views the same in a batch as alone.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.models.frame_batch import FrameBatch
from vidprune.profiling.flops import flops
from vidprune.profiling.timing import median_ratio, peak_memory_mib, time_in_turn
from vidprune.pruning import PrunedViT, input_shape, is_pruned

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
            on as many tokens): 1 means that deciding and gathering cost nothing. None where methods act inside blocks.
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
    models: Mapping[str, nn.Module], *, batch: int = 1, rounds: int = 9, warm_up: int = 2
) -> list[ModelSpeed]:
    """One row per model, in the order given; the first is what the others are compared with.

    Args:
        models: the dense host first, then pruned models of the same host, on one device in one dtype.

    Raises:
        UnsupportedModelError: a model's outputs are not what they should be; nothing is timed then.
    """
    if batch < 1 or rounds < 1:
        raise ConfigError(f"batch and rounds must be at least 1, got {batch} and {rounds}")
    first = next(iter(models.values()))
    like = next(first.parameters())
    device = str(like.device)
    generator = torch.Generator().manual_seed(0)
    shape = (batch, *input_shape(first)[1:])
    pixels = torch.randn(shape, generator=generator).to(like.device, like.dtype)
    for name, model in models.items():
        check_outputs(name, model, pixels)
    ways: dict[str, Callable[[], object]] = {}
    for name, model in models.items():
        ways[name] = lambda model=model: model(pixels)  # type: ignore[misc]
        if is_pruned(model):
            ways |= {f"{name}: {part}": way for part, way in _parts(model, pixels).items()}
    seconds = time_in_turn(ways, rounds=rounds, warm_up=warm_up, device=device)
    dense = seconds[next(iter(models))]
    return [
        _row(name, model, batch, seconds, dense, peak_memory_mib(ways[name], device)) for name, model in models.items()
    ]


def check_outputs(name: str, model: nn.Module, pixels: Tensor) -> None:
    """Raises `UnsupportedModelError` unless logits are finite, repeat, and do not depend on the rest of the batch."""
    logits, again, alone = model(pixels), model(pixels), model(pixels[:1])
    tolerance = TOLERANCE.get(logits.dtype, 1e-3) * max(1.0, float(logits.abs().max()))
    if not logits.isfinite().all():
        raise UnsupportedModelError(f"{name}: logits are not finite, so its time means nothing; try another dtype")
    for what, other in (("a second pass", again), ("the first view alone", alone)):
        gap = float((logits[: len(other)] - other).abs().max())
        if gap > tolerance:
            raise UnsupportedModelError(f"{name}: {what} differs by {gap:.2g}, allowed is {tolerance:.2g}; not timed")


def _parts(model: PrunedViT | FrameBatch, pixels: Tensor) -> dict[str, Callable[[], object]]:
    """The proposal alone, and the bound: what the host alone would take on as many tokens."""
    parts: dict[str, Callable[[], object]] = {}
    proposal, grid = model.proposal, model.token_grid
    if proposal is not None:
        clip = pixels if pixels.ndim == 5 else pixels.unsqueeze(2)
        parts["proposal"] = lambda: proposal(clip, grid=grid)
    if isinstance(model, PrunedViT) and model.block_step is None and flops_or_none(model) is not None:
        host = model.host
        width, count = int(host.embed_dim), int(host.num_prefix_tokens) + model.num_kept()
        tokens = torch.randn(len(pixels), count, width, device=pixels.device, dtype=pixels.dtype)

        def bound() -> Tensor:
            host.patch_embed(pixels)
            return host.forward_head(host.norm(host.blocks(tokens)))

        parts["bound"] = bound
    return parts


def _row(
    name: str,
    model: nn.Module,
    batch: int,
    seconds: Mapping[str, list[float]],
    dense: list[float],
    peak_mib: float | None,
) -> ModelSpeed:
    spent = seconds[name]
    median = statistics.median(spent)
    bound, proposal = seconds.get(f"{name}: bound"), seconds.get(f"{name}: proposal")
    cost = flops_or_none(model)
    return ModelSpeed(
        name=name,
        batch=batch,
        ms_per_view=1e3 * median / batch,
        views_per_s=batch / median,
        speed_up=median_ratio(dense, spent),
        gmacs=None if cost is None else cost[0],
        gmacs_reduction=None if cost is None else cost[1],
        proposal_ms=0.0 if proposal is None else 1e3 * statistics.median(proposal) / batch,
        share_of_bound=None if bound is None else median_ratio(bound, spent),
        peak_mib=peak_mib,
    )


def flops_or_none(model: nn.Module) -> tuple[float, float] | None:
    """GMACs per view and the reduction against dense; None where they depend on the input."""
    report = flops(model)
    return None if report.depends_on_input else (report.total_gmacs, report.reduction)
