"""An evaluation from its config: the model, the videos, the store, the loop, the report."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from vidprune.config import (
    EvaluateConfig,
    RunConfig,
    build_model,
    build_views,
    demo_or_path,
    resolve_device,
    runner_settings,
)
from vidprune.errors import ConfigError
from vidprune.evaluation.files import write_report
from vidprune.evaluation.report import EvaluationReport
from vidprune.evaluation.runner import run_entries
from vidprune.evaluation.store import PredictionStore, Row
from vidprune.runs.header import class_names_of, header_facts, run_identity

if TYPE_CHECKING:
    from vidprune.evaluation.manifests import Manifest, ManifestEntry

MANY = 20  # files that are missing one after the other from the start: it is the folder that is wrong


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
    from vidprune.inference import reader_for
    from vidprune.pruning import host_of

    settings = runner_settings(config)
    run = dataclasses.replace(config.run, device=own_device(config.run.device))
    model = build_model(run)
    plan = build_views(run, model)
    manifest = manifest_of(config, run, int(host_of(model).num_classes))
    store = PredictionStore.create_or_resume(
        config.out, run_identity(config, run, plan, manifest), header_facts(config, run, model, manifest)
    )
    done = store.chosen_rows()
    mine = own_entries(manifest)
    missing = missing_positions(mine, done, config.retry_failed)
    if on_start is not None:
        on_start(len(missing), len(done), manifest.warnings)
    left = [(position, entry) for position, entry in mine if position in missing]
    decode = reader_for([model], plan, backend=run.backend, colour=run.colour)
    run_entries(left, model, plan, store, settings, decode=decode, on_row=on_row)
    return write_report(config.out)


def manifest_of(config: EvaluateConfig, run: RunConfig, num_classes: int) -> Manifest:
    """The list of videos; what is doubtful about the order of its labels joins its warnings."""
    from vidprune.evaluation.label_order import check_label_order
    from vidprune.evaluation.manifests import read_manifest

    names = class_names_of(run, num_classes)
    manifest = read_manifest(
        demo_or_path(config.manifest),
        root=config.root,
        format=config.manifest_format,
        class_names=None if names[0] == "class 0" else names,  # numbers are no names
        num_classes=num_classes,
    )
    manifest = dataclasses.replace(manifest, entries=manifest.entries[: config.limit])
    _refuse_wrong_root(manifest)
    order = check_label_order(manifest, num_classes)
    doubts = (order.text,) if order.status == "disagrees" else ()
    return dataclasses.replace(manifest, warnings=(*manifest.warnings, *doubts))


def _refuse_wrong_root(manifest: Manifest) -> None:
    """A run in which every video fails takes as long as any, and its folder then belongs to the wrong paths."""
    from vidprune.evaluation.manifests import find_missing

    first = manifest.entries[:MANY]
    if len(first) == MANY and len(find_missing(dataclasses.replace(manifest, entries=first))) == MANY:
        raise ConfigError(
            f"none of the first {MANY} files of {manifest.source} exists, the first would be {first[0].path}; is --root"
            " right? `vidprune validate` looks for all of them"
        )


def own_entries(manifest: Manifest) -> list[tuple[int, ManifestEntry]]:
    """This process's share of the videos, each with its position in the manifest."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))  # as `torchrun` gives them
    return [(position, entry) for position, entry in enumerate(manifest.entries) if position % world == rank]


def missing_positions(
    entries: Sequence[tuple[int, ManifestEntry]], done: dict[int, tuple[int, int, bool]], retry_failed: bool
) -> frozenset[int]:
    """Positions of `entries` without a row among `done` (see `PredictionStore.chosen_rows`), or with a failure's."""
    return frozenset(
        position for position, _ in entries if position not in done or (retry_failed and done[position][2])
    )


def own_device(name: str) -> str:
    """The device by name; "auto" gives each process of a machine a GPU of its own."""
    device = resolve_device(name)
    own = os.environ.get("LOCAL_RANK")
    return f"cuda:{own}" if name == "auto" and device == "cuda" and own is not None else device
