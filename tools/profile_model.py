"""Where the time of one forward pass goes, dense and pruned: proposal, embedding and choice, attention, MLPs, the rest.

    python tools/profile_model.py --model videomae_base --method "papr keep_ratio=.45 proposal=x3d_s" --out profile.csv

Timers around the model's own modules, so for methods before the blocks: one inside them runs blocks from their parts.
On a GPU each timer waits for the device, so the sum is longer there than a pass alone.
The input is noise, the weights may be random: neither changes the time of a method of fixed counts.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidprune.cli.bench import build_models
from vidprune.config import ModelConfig, RunConfig
from vidprune.profiling.measured_csv import write_measured
from vidprune.profiling.timing import machine, synchronize
from vidprune.pruning import PrunedViT, host_of, input_shape


@dataclass(frozen=True)
class Share:
    """One part of a forward pass: median milliseconds, and its share of the pass."""

    name: str
    part: str
    ms: float
    percent: float


def parts_of(model: nn.Module) -> dict[str, list[nn.Module]]:
    """The modules whose time is told apart."""
    host = host_of(model)
    parts: dict[str, list[nn.Module]] = {
        "embedding of all patches": [host.patch_embed],
        "attention": [block.attn for block in host.blocks],
        "MLPs": [block.mlp for block in host.blocks],
        "norms": [norm for block in host.blocks for norm in (block.norm1, block.norm2)],
    }
    if isinstance(model, PrunedViT) and model.proposal is not None:
        parts["proposal"] = [model.proposal]
    return parts


@contextmanager
def timed(modules: list[nn.Module], add: Callable[[float], None], device: str) -> Iterator[None]:
    """Report the seconds of every call of `modules`."""
    started: dict[int, float] = {}

    def before(module: nn.Module, *_: Any) -> None:
        synchronize(device)
        started[id(module)] = time.perf_counter()

    def after(module: nn.Module, *_: Any) -> None:
        synchronize(device)
        add(time.perf_counter() - started[id(module)])

    handles = [module.register_forward_pre_hook(before) for module in modules]
    handles += [module.register_forward_hook(after) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def profile(name: str, model: nn.Module, rounds: int) -> list[Share]:
    """Median milliseconds of every part over `rounds` passes of one view."""
    like = next(model.parameters())
    device = str(like.device)
    pixels = torch.randn(input_shape(model), device=like.device, dtype=like.dtype)
    spent: dict[str, list[float]] = defaultdict(list)
    with torch.inference_mode():
        model(pixels)
        for _ in range(rounds):
            sums: dict[str, float] = defaultdict(float)
            with ExitStack() as stack:
                for part, modules in parts_of(model).items():
                    stack.enter_context(timed(modules, partial(_add, sums, part), device))
                synchronize(device)
                start = time.perf_counter()
                model(pixels)
                synchronize(device)
                whole = time.perf_counter() - start
            sums["choice, kept embedding, residuals, head"] = whole - sum(sums.values())
            sums["all"] = whole
            for part, seconds in sums.items():
                spent[part].append(seconds)
    whole = statistics.median(spent["all"])
    return [
        Share(name, part, 1e3 * statistics.median(seconds), 100 * statistics.median(seconds) / whole)
        for part, seconds in spent.items()
    ]


def _add(sums: dict[str, float], part: str, seconds: float) -> None:
    sums[part] += seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="videomae_base")
    parser.add_argument("--method", action="append", default=[])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    run = RunConfig(model=ModelConfig(args.model), device=args.device, dtype=args.dtype)
    models = build_models(run, args.method)
    rows = [share for name, model in models.items() for share in profile(name, model, args.rounds)]
    device = str(next(models["dense"].parameters()).device)
    write_measured(args.out, rows, command=["python", "tools/profile_model.py", *sys.argv[1:]], machine=machine(device))
    for row in rows:
        print(f"{row.name:60} {row.part:45} {row.ms:9.1f} ms {row.percent:5.1f} %")


if __name__ == "__main__":
    main()
