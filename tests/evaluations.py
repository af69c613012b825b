"""A tiny model, a made-up manifest, and an evaluation that is killed again and again. Also a script:

python -m tests.evaluations FOLDER NUM_KILLS SEED
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tests.decoders import PLAN, made_up
from vidprune.evaluation.manifests import ManifestEntry
from vidprune.evaluation.runner import RunnerSettings, run_entries
from vidprune.evaluation.store import PredictionStore
from vidprune.models.builders import build_videomae
from vidprune.models.videomae import VideoMAESpec
from vidprune.pruners.controls import Random
from vidprune.pruning import prune

NUM_CLASSES = 7


def tiny_model() -> nn.Module:
    """A pruned VideoMAE of 8 tokens; the same weights at every call."""
    torch.manual_seed(0)
    spec = VideoMAESpec(width=16, depth=1, num_heads=2, num_frames=4, image_size=32)
    return prune(build_videomae(spec, num_classes=NUM_CLASSES).eval(), Random(0.5)).eval()


def entries(names: Sequence[str]) -> list[tuple[int, ManifestEntry]]:
    return [(i, ManifestEntry(name, Path(name), i % NUM_CLASSES)) for i, name in enumerate(names)]


def new_store(
    folder: Path, num_listed: int, more_facts: Mapping[str, Any] | None = None, **identity: Any
) -> PredictionStore:
    facts = {
        "num_classes": NUM_CLASSES,
        "class_names": [f"class {i}" for i in range(NUM_CLASSES)],
        "num_tokens": 8,
        "num_kept": 4,
        "weights": "random weights",
        "num_listed": num_listed,
        "num_labelled": num_listed,
        "manifest": {"source": "made up", "format": "paths", "warnings": []},
        "environment": {"device": "cpu", "vidprune": "0", "packages": {}, "git": None},
    }
    what = {
        "model": {"name": "tiny"},
        "method": {"name": "random", "keep_ratio": 0.5},
        "views": {"protocol": "videomae", "num_segments": 2, "num_crops": 3, "num_frames": 4, "frame_stride": 1}
        | {"crop_size": 32},
        "protocol_version": 1,
        "dtype": "float32",
        "store": "logits",
    }
    return PredictionStore.create_or_resume(folder, what | identity, facts | dict(more_facts or {}))


def evaluate(
    folder: Path, names: Sequence[str], *, seconds: float = 0.0, model: nn.Module | None = None, **settings: Any
) -> PredictionStore:
    """Evaluate what the store does not have yet."""
    store = new_store(folder, len(names), store=settings.get("stored", "logits"))
    done = store.chosen_rows()
    left = [entry for entry in entries(names) if entry[0] not in done]
    options = RunnerSettings(**{"workers": 0, **settings})
    run_entries(left, model or tiny_model(), PLAN, store, options, decode=partial(made_up, seconds=seconds))
    return store


def evaluate_and_kill(folder: Path, names: Sequence[str], num_kills: int, seed: int) -> list[int]:
    """Run the evaluation in forked processes that are killed at random moments, then once to its end.

    Returns:
        How many rows were stored after each kill.
    """
    model, moments, stored = tiny_model(), random.Random(seed), []
    torch.set_num_threads(1)
    run = partial(evaluate, names=names, seconds=0.01, model=model, flush_rows=2)
    run(folder.with_name("warm"))
    start = time.monotonic()
    _finish(_fork(run, folder.with_name("timed")))
    whole = time.monotonic() - start
    for _ in range(num_kills):
        child = _fork(run, folder)
        time.sleep(moments.uniform(0, whole / 4))
        os.kill(child, signal.SIGKILL)
        _finish(child)
        stored.append(len(PredictionStore.open(folder).chosen_rows()) if (folder / "header.json").exists() else 0)
    evaluate(folder, names, model=model, flush_rows=2)
    return stored


def _fork(run: Callable[[Path], object], folder: Path) -> int:
    """Run it in a child that shares what is loaded; its process id."""
    child = os.fork()
    if child == 0:
        run(folder)
        os._exit(0)
    return child


def _finish(child: int) -> None:
    os.waitpid(child, 0)


if __name__ == "__main__":
    print(evaluate_and_kill(Path(sys.argv[1]), [f"v{i}" for i in range(24)], int(sys.argv[2]), int(sys.argv[3])))
