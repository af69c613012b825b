"""One config in, one finished run out: what `vidprune.evaluate` and the command line call."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.config import (
    DEMO,
    EvaluateConfig,
    RunConfig,
    build_methods,
    build_model,
    build_views,
    demo_file,
    demo_or_path,
    resolve_device,
)
from vidprune.errors import ConfigError
from vidprune.evaluation.files import write_report
from vidprune.evaluation.identity import PROTOCOL_VERSIONS, environment, file_sha256, rows_sha256
from vidprune.evaluation.report import EvaluationReport
from vidprune.evaluation.runner import RunnerSettings, run_entries
from vidprune.evaluation.store import PredictionStore, Row

if TYPE_CHECKING:
    from torch import nn

    from vidprune.evaluation.manifests import Manifest
    from vidprune.video import ViewPlan

MAX_WORKERS = 16


def evaluate(
    config: EvaluateConfig,
    *,
    on_start: Callable[[int, int, Sequence[str]], None] | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> EvaluationReport:
    """Evaluate a manifest into `config.out`, going on from what is there, and report on it.

    Under `torchrun` every process takes its share of the videos and writes into the same folder; no process waits for
    another, and a later run may have another number of them. The report of a process that ends before the others is
    incomplete (`is_complete`); the last one's is whole and stays in the folder.

    Args:
        on_start: called with how many videos this process will evaluate, how many are done, and the list's warnings.
        on_row: called with every new row.

    Raises:
        ConfigError: an option or a label out of range, an unreadable manifest.
        StoreError: `config.out` holds another run, or cannot be written.
    """
    from vidprune.pruning import host_of

    settings = _runner_settings(config)
    rank, world = _rank()
    run = dataclasses.replace(config.run, device=_device(config.run.device))
    model = build_model(run)
    plan = build_views(run, model)
    manifest = _manifest(config, run, int(host_of(model).num_classes))
    facts = _facts(config, run, model, manifest)
    store = PredictionStore.create_or_resume(config.out, run_identity(config, run, plan, manifest), facts)
    done = store.chosen_rows()
    mine = [
        (position, entry)
        for position, entry in enumerate(manifest.entries)
        if position % world == rank and (position not in done or (config.retry_failed and done[position][2]))
    ]
    if on_start is not None:
        on_start(len(mine), len(done), manifest.warnings)
    run_entries(mine, model, plan, store, settings, backend=run.backend, on_row=on_row)
    return write_report(config.out)


def run_identity(config: EvaluateConfig, run: RunConfig, plan: ViewPlan, manifest: Manifest) -> dict[str, Any]:
    """Every fact that the stored predictions depend on; files count by their content."""
    return {
        "model": {
            "name": run.model.name,
            "num_classes": run.model.num_classes,
            "weights_sha256": _weights_sha256(run),
        },
        "method": _method_identity(run),
        "views": dataclasses.asdict(plan),
        "protocol_version": PROTOCOL_VERSIONS[plan.protocol],
        "dtype": run.dtype,
        "backend": run.backend,
        "seed": run.seed,
        "manifest": {
            "num_entries": len(manifest.entries),
            "ids_and_labels_sha256": rows_sha256((e.video_id, e.label) for e in manifest.entries),
            "paths_sha256": rows_sha256((os.path.abspath(e.path),) for e in manifest.entries),
        },
        "store": config.store,
    }


def _weights_sha256(run: RunConfig) -> str | None:
    if run.model.name == DEMO:
        return file_sha256(demo_file("videomae_tiny.safetensors"))
    return None if run.model.checkpoint is None else file_sha256(run.model.checkpoint)


def _method_identity(run: RunConfig) -> dict[str, Any]:
    """The method with its defaults filled in, so that writing a default out changes nothing; checkpoints by content."""
    steps = [_step_identity(method) for method in build_methods(run.method, run.model)]
    if len(steps) < 2:
        return steps[0] if steps else {"name": "dense"}
    return {"name": "+".join(step["name"] for step in steps), "steps": steps}


def _step_identity(method: Any) -> dict[str, Any]:
    identity: dict[str, Any] = {"name": method.name}
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if not isinstance(value, str | int | float | bool | list | tuple | None):
            raise ConfigError(f"an evaluation records its method in words: give {field.name} by name, got {value!r}")
        if field.name.endswith(("checkpoint", "calibration", "rates")):  # files, which count by content
            identity[f"{field.name}_sha256"] = None if value is None else file_sha256(str(value))
        else:
            identity[field.name] = value
    return identity


def _facts(config: EvaluateConfig, run: RunConfig, model: nn.Module, manifest: Manifest) -> dict[str, Any]:
    """What the header says besides the identity."""
    from vidprune.pruning import PrunedViT, host_of, token_grid

    host = host_of(model)
    num_classes = int(host.num_classes)
    num_tokens = token_grid(model).num_tokens
    return {
        "num_classes": num_classes,
        "class_names": list(_class_names(run, num_classes)),
        "num_tokens": num_tokens,
        "num_kept": model.num_final() if is_pruned(model) else num_tokens,
        "cost": _cost(model),
        "weights": getattr(host, "checkpoint_source", None) or f"random weights, seed {run.seed}",
        "num_listed": len(manifest.entries),
        "num_labelled": sum(entry.label is not None for entry in manifest.entries),
        "manifest": {"source": str(manifest.source), "format": manifest.format, "warnings": list(manifest.warnings)},
        "config": _plain(dataclasses.asdict(dataclasses.replace(config, run=run))),
        "environment": environment(run.device),
    }


def _cost(model: nn.Module) -> dict[str, Any] | None:
    """GMACs per view, counted from shapes; None where they depend on the input."""
    from vidprune.profiling.flops import flops

    cost = flops(model)
    if cost.depends_on_input:
        return None
    return {name: getattr(cost, name) for name in ("dense_gmacs", "vit_gmacs", "proposal_gmacs", "convention")}


def _manifest(config: EvaluateConfig, run: RunConfig, num_classes: int) -> Manifest:
    """The list of videos; what is doubtful about the order of its labels joins its warnings."""
    from vidprune.evaluation.label_order import check_label_order
    from vidprune.evaluation.manifests import read_manifest

    names = _class_names(run, num_classes)
    manifest = read_manifest(
        demo_or_path(config.manifest),
        root=config.root,
        format=config.manifest_format,
        class_names=None if names[0] == "class 0" else names,  # numbers are no names
        num_classes=num_classes,
    )
    manifest = dataclasses.replace(manifest, entries=manifest.entries[: config.limit])
    order = check_label_order(manifest, num_classes)
    doubts = (order.text,) if order.status == "disagrees" else ()
    return dataclasses.replace(manifest, warnings=(*manifest.warnings, *doubts))


def _class_names(run: RunConfig, num_classes: int) -> tuple[str, ...]:
    from vidprune.labels import class_names, default_class_names

    source = run.class_names or (DEMO if run.model.name == DEMO else None)
    return default_class_names(num_classes) if source is None else class_names(source, num_classes)


def _runner_settings(config: EvaluateConfig) -> RunnerSettings:
    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return RunnerSettings(
        workers=max(1, min(MAX_WORKERS, cores)) if config.workers is None else config.workers,
        timeout_s=config.timeout_s,
        views_per_batch=config.run.views_per_batch,
        flush_rows=config.flush_rows,
        flush_s=config.flush_s,
        stored=config.store,
    )


def _rank() -> tuple[int, int]:
    """(rank, number of processes) as `torchrun` gives them; (0, 1) without it."""
    return int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))


def _device(name: str) -> str:
    """The device by name; "auto" gives each process of a machine a GPU of its own."""
    device = resolve_device(name)
    own = os.environ.get("LOCAL_RANK")
    return f"cuda:{own}" if name == "auto" and device == "cuda" and own is not None else device


def _plain(value: Any) -> Any:
    """JSON's own kinds."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
