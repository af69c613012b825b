"""What the header of a run says: the facts that its predictions depend on (the identity), and what else is known."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.config import DEMO, EvaluateConfig, RunConfig, build_methods, demo_file
from vidprune.errors import ConfigError
from vidprune.evaluation.identity import PLANES_VERSION, PROTOCOL_VERSIONS, environment, file_sha256, rows_sha256

if TYPE_CHECKING:
    from torch import nn

    from vidprune.evaluation.manifests import Manifest
    from vidprune.video import ViewPlan


def run_identity(config: EvaluateConfig, run: RunConfig, plan: ViewPlan, manifest: Manifest) -> dict[str, Any]:
    """Every fact that the stored predictions depend on; files count by their content."""
    return {
        "model": {
            "name": run.model.name,
            "num_classes": run.model.num_classes,
            "weights_sha256": _weights_sha256(run),
        },
        "method": method_identity(run),
        "views": dataclasses.asdict(plan),
        "protocol_version": PROTOCOL_VERSIONS[plan.protocol],
        "dtype": run.dtype,
        "backend": run.backend,
        # Only where it is not the usual: runs that were stored before there was a choice stay what they are.
        **({} if run.colour == "rgb" else {"colour": run.colour, "planes_version": PLANES_VERSION}),
        "seed": run.seed,
        "manifest": {
            "num_entries": len(manifest.entries),
            "ids_and_labels_sha256": rows_sha256((e.video_id, e.label) for e in manifest.entries),
            "paths_sha256": rows_sha256((os.path.abspath(e.path),) for e in manifest.entries),
        },
        "store": config.store,
    }


def method_identity(run: RunConfig) -> dict[str, Any]:
    """The method with its defaults filled in, so that writing a default out changes nothing; files by content.

    Of a chain "name" joins the names of its "steps" with "+".
    """
    steps = [_step_identity(method) for method in build_methods(run.method, run.model)]
    if len(steps) < 2:
        return steps[0] if steps else {"name": "dense"}
    return {"name": "+".join(step["name"] for step in steps), "steps": steps}


def header_facts(config: EvaluateConfig, run: RunConfig, model: nn.Module, manifest: Manifest) -> dict[str, Any]:
    """What the header says besides the identity. Counts that depend on the input are None."""
    from vidprune.profiling.flops import flops
    from vidprune.pruning import host_of, is_pruned, token_grid

    host = host_of(model)
    num_classes = int(host.num_classes)
    num_tokens = token_grid(model).num_tokens
    num_kept = model.num_final() if is_pruned(model) else num_tokens
    cost = flops(model)
    return {
        "num_classes": num_classes,
        "class_names": list(class_names_of(run, num_classes)),
        "num_tokens": num_tokens,
        "num_kept": None if cost.depends_on_input else num_kept,
        "cost": None if cost.depends_on_input else _cost(cost),
        "weights": getattr(host, "checkpoint_source", None) or f"random weights, seed {run.seed}",
        "num_listed": len(manifest.entries),
        "num_labelled": sum(entry.label is not None for entry in manifest.entries),
        "manifest": {"source": str(manifest.source), "format": manifest.format, "warnings": list(manifest.warnings)},
        "config": _plain(dataclasses.asdict(dataclasses.replace(config, run=run))),
        "environment": environment(run.device),
    }


def class_names_of(run: RunConfig, num_classes: int) -> tuple[str, ...]:
    """One name per class: those that the config names, or those that go with their number."""
    from vidprune.labels import class_names, default_class_names

    source = run.class_names or (DEMO if run.model.name == DEMO else None)
    return default_class_names(num_classes) if source is None else class_names(source, num_classes)


def _weights_sha256(run: RunConfig) -> str | None:
    if run.model.name == DEMO:
        return _content_of(str(demo_file("videomae_tiny.safetensors")))
    return None if run.model.checkpoint is None else _content_of(run.model.checkpoint)


def _content_of(path: str) -> str:
    """`file_sha256`, computed once for all points of a sweep that share a file."""
    file = Path(path)
    if not file.is_file():  # a folder, or nothing
        return file_sha256(path)
    return _content_of_version(path, file.stat().st_size, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _content_of_version(path: str, size: int, modified_ns: int) -> str:
    return file_sha256(path)


def _step_identity(method: Any) -> dict[str, Any]:
    identity: dict[str, Any] = {"name": method.name}
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if not isinstance(value, str | int | float | bool | list | tuple | None):
            raise ConfigError(f"an evaluation records its method in words: give {field.name} by name, got {value!r}")
        if field.name.endswith(("checkpoint", "calibration", "rates")):
            identity[f"{field.name}_sha256"] = None if value is None else _content_of(str(value))
        else:
            identity[field.name] = value
    return identity


def _cost(cost: Any) -> dict[str, Any]:
    """GMACs per view, counted from shapes."""
    return {name: getattr(cost, name) for name in ("dense_gmacs", "vit_gmacs", "proposal_gmacs", "convention")}


def _plain(value: Any) -> Any:
    """JSON's own kinds."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
