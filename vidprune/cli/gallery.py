"""Pictures of what a finished run kept, its model built again from the config in the run's header."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.cli.screen import progress, warn
from vidprune.errors import ConfigError, VidpruneError

if TYPE_CHECKING:
    from vidprune.config import RunConfig
    from vidprune.evaluation.comparison import ComparedRun, Comparison
    from vidprune.evaluation.page import Picture


def pictures(comparison: Comparison, limit: int) -> list[Picture]:
    """Contact sheets of the first `limit` decoded videos of the first run that prunes, or else of the first run.

    A video that can no longer be read is reported, and the next one takes its place.

    Raises:
        ConfigError: the run's model cannot be built again, or its weights are no longer those that made the run.
    """
    from vidprune.config import build_model, build_views
    from vidprune.evaluation.page import Picture
    from vidprune.evaluation.store import PredictionStore
    from vidprune.visualization.of_video import sheet_of_video

    run = next((one for one in comparison.runs if not one.is_dense), comparison.runs[0])
    config = _config(run)
    videos = PredictionStore.open(run.report.run).table(["path", "error"])
    decoded = [path for path, error in zip(*_lists(videos, "path", "error"), strict=True) if error is None]
    model = build_model(config)
    plan = build_views(config, model)
    made: list[Picture] = []
    with progress(decoded[:limit], "drawing") as steps:
        remaining = iter(decoded)
        for _ in steps:
            for path in remaining:
                try:
                    sheet = sheet_of_video(
                        path,
                        model,
                        plan,
                        class_names=tuple(run.header["class_names"]),
                        model_name=config.model.name,
                        backend=config.backend,
                        colour=config.colour,
                    )
                except VidpruneError as error:
                    warn(f"no picture: {error}")
                    continue
                made.append(Picture(f"{Path(path).name} in {run.name}", _png(sheet)))
                break
    return made


def _config(run: ComparedRun) -> RunConfig:
    from vidprune.config import parse_config
    from vidprune.evaluation.identity import file_sha256

    recorded = run.header.get("config")
    if recorded is None:
        raise ConfigError(f"{run.name} does not say how its model was built, so nothing can be pictured")
    config = parse_config(recorded["run"], source=f"{run.name}: config")
    checkpoint = config.model.checkpoint
    if checkpoint is not None and file_sha256(checkpoint) != run.header["identity"]["model"]["weights_sha256"]:
        raise ConfigError(
            f"{checkpoint} is no longer the file that {run.name} was made with, so nothing can be pictured"
        )
    return dataclasses.replace(config, device="auto", compile=False)  # it may have run on another machine


def _lists(table: Any, *names: str) -> list[list[Any]]:
    return [table[name].to_pylist() for name in names]


def _png(sheet: Any) -> bytes:
    data = io.BytesIO()
    sheet.save(data, format="PNG")
    return data.getvalue()
