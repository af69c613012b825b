"""Sets every method to the same cost, and measures accuracy and speed at that setting."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from sweep_methods import Chain, Dial, Setting, all_dials, describe, solve
from sweep_tasks import Task
from torch import Tensor, nn

from vidprune.calibration import calibrate
from vidprune.errors import VidpruneError
from vidprune.profiling.flops import flops
from vidprune.pruning import PrunedViT, host_info, prune

BATCH = 16
MISS = 0.05  # share of dense by which a method may miss a target before it counts as out of its reach
TOO_FAR = 0.75  # share of a dial beyond which another dial of the method is preferred: few tokens are left there


@dataclass
class Variant:
    """One method at one cost, and what was measured of it.

    Attributes:
        target: share of the dense cost that was asked for; 1 for dense.
        gmacs: per input, proposal included; the mean over the calibration set where it depends on the input.
        tokens: patch tokens at the end, likewise.
        hits: per seed, whether each input came out right.
        seconds: per batch size, the median time of a forward pass.
    """

    method: str
    target: float
    setting: str
    model: nn.Module
    gmacs: float
    proposal_gmacs: float
    tokens: float
    hits: dict[int, np.ndarray] = field(default_factory=dict)
    seconds: dict[int, float] = field(default_factory=dict)

    @property
    def all_hits(self) -> np.ndarray:
        return np.concatenate([self.hits[seed] for seed in sorted(self.hits)])


def find_variants(task: Task, targets: Sequence[float]) -> tuple[list[Variant], list[str]]:
    """Dense, then each method at each target; and a line for each one that is missing, with the reason."""
    dense = flops(task.host)
    num_tokens = dense.num_tokens - int(task.host.num_prefix_tokens)
    variants = [Variant("dense", 1.0, "", task.host, dense.total_gmacs, 0.0, num_tokens)]
    missing = []
    calibration = task.calibration()
    setting = Setting(host_info(task.host), task.proposal, calibrate(task.host, [calibration]))
    for name, dials in all_dials(setting):
        if not dials:
            missing.append(f"{name}: no single number here sets its strength")
            continue
        try:
            build(task, dials[0].make(dials[0].num_steps // 2))(calibration[:1])
        except VidpruneError as refusal:
            missing.append(f"{name}: {refusal}")
            continue
        for target in targets:
            variant = _at_target(task, name, dials, target, calibration)
            share = variant.gmacs / dense.total_gmacs
            if abs(share - target) <= MISS:
                variants.append(variant)
            else:
                missing.append(f"{name} at {target:.0%}: the nearest it gets is {share:.0%} of dense")
    return variants, missing


def _at_target(task: Task, name: str, dials: Sequence[Dial], target: float, calibration: Tensor) -> Variant:
    """The method at the setting nearest to the target, on the first of its dials that need not be turned too far."""
    dense = flops(task.host).total_gmacs
    found = []
    for order, dial in enumerate(dials):
        cost = cache(lambda strength, dial=dial: measured_cost(build(task, dial.make(strength)), calibration))
        strength = solve(lambda s, cost=cost: cost(s)[0], target * dense, dial.num_steps)
        miss = abs(cost(strength)[0] / dense - target)
        missed, far = miss > MISS, strength > TOO_FAR * dial.num_steps
        found.append(((missed, miss if missed else 0.0, far, order), dial.make(strength), cost(strength)))
        if not missed and not far:
            break
    _, chain, figures = min(found)
    return Variant(name, target, describe(chain), build(task, chain, self_check=True), *figures)


def build(task: Task, chain: Chain, self_check: bool = False) -> PrunedViT:
    return prune(task.host, chain, self_check=self_check).eval()


def measured_cost(model: PrunedViT, calibration: Tensor) -> tuple[float, float, float]:
    """GMACs per input, those of the proposal among them, and the patch tokens that reach the head.

    Means over `calibration` for a method whose counts depend on the input; the others run nothing.
    """
    if not model.ragged:
        report = flops(model)
        return report.total_gmacs, report.proposal_gmacs, float(model.num_final())
    with torch.inference_mode():
        _, trace = model.forward_with_trace(calibration)
    report = flops(model, plans=trace.plans)
    tokens = model.token_grid.num_tokens if trace.num_kept is None else float(trace.num_kept.float().mean())
    return report.total_gmacs, report.proposal_gmacs, tokens


@torch.inference_mode()
def measure_accuracy(task: Task, variants: Sequence[Variant], seed: int) -> None:
    """Adds the hits of test set `seed` to every variant."""
    data = task.test_set(seed)
    for variant in variants:
        predicted = torch.cat([variant.model(inputs).argmax(1) for inputs in data.inputs.split(BATCH)])
        variant.hits[seed] = (predicted == data.labels).numpy()


@torch.inference_mode()
def measure_speed(variants: Sequence[Variant], inputs: Tensor, batch_size: int, rounds: int) -> None:
    """Adds the median seconds of a forward pass, all variants in turn in every round so that drifts hit them alike."""
    batch = inputs[:batch_size]
    for variant in variants:
        variant.model(batch)
    times: list[list[float]] = [[] for _ in variants]
    for _ in range(rounds):
        for variant, own in zip(variants, times, strict=True):
            own.append(_seconds(variant.model, batch))
    for variant, own in zip(variants, times, strict=True):
        variant.seconds[batch_size] = statistics.median(own)


def _seconds(model: Callable[[Tensor], Tensor], batch: Tensor) -> float:
    start = time.perf_counter()
    model(batch)
    return time.perf_counter() - start
