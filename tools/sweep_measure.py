"""Sets every method to the same cost, and measures accuracy and speed at that setting."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from sweep_methods import MISS, Chain, Dial, all_dials, describe, refusal, solve, unknown_methods
from sweep_tasks import Task
from torch import Tensor, nn

from vidprune.profiling.flops import flops
from vidprune.pruning import PrunedViT, host_info, prune

BATCH = 16


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
    variants = [Variant("dense", 1.0, "", task.host, dense.total_gmacs, 0.0, dense.num_tokens - prefix(task))]
    missing = [f"{name}: no single number here sets its strength" for name in unknown_methods()]
    calibration = task.calibration()
    for dial in all_dials(host_info(task.host), task.proposal):
        reason = refusal(lambda dial=dial: build(task, dial.make(dial.num_steps // 2))(calibration[:1]))
        if reason is not None:
            missing.append(f"{dial.name}: {reason}")
            continue
        for target in targets:
            variant = _at_target(task, dial, target, dense.total_gmacs, calibration)
            if abs(variant.gmacs / dense.total_gmacs - target) <= MISS:
                variants.append(variant)
            else:
                share = variant.gmacs / dense.total_gmacs
                missing.append(f"{dial.name} at {target:.0%}: the nearest it gets is {share:.0%} of dense")
    return variants, missing


def _at_target(task: Task, dial: Dial, target: float, dense_gmacs: float, calibration: Tensor) -> Variant:
    @cache
    def cost(strength: int) -> tuple[float, float, float]:
        return measured_cost(build(task, dial.make(strength)), calibration)

    strength = solve(lambda s: cost(s)[0], target * dense_gmacs, dial.num_steps)
    chain = dial.make(strength)
    return Variant(dial.name, target, describe(chain), build(task, chain, self_check=True), *cost(strength))


def build(task: Task, chain: Chain, self_check: bool = False) -> PrunedViT:
    return prune(task.host, chain, self_check=self_check).eval()


def prefix(task: Task) -> int:
    return int(task.host.num_prefix_tokens)


def measured_cost(model: PrunedViT, calibration: Tensor) -> tuple[float, float, float]:
    """GMACs per input, those of the proposal among them, and the tokens that reach the head."""
    report = flops(model)
    return report.total_gmacs, report.proposal_gmacs, float(model.num_final())


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
