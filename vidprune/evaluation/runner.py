"""The loop of an evaluation: decode workers -> bounded queue -> model -> store; every video gets its row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from vidprune.errors import ConfigError
from vidprune.evaluation.decoding import Decode, decode_all
from vidprune.evaluation.in_flight import InFlight, launch, one_behind
from vidprune.evaluation.rows import BatchSize, RowWriter, failed_row, predicted_row
from vidprune.evaluation.store import STORED, PredictionStore, Row
from vidprune.evaluation.transport import Decoded
from vidprune.inference import ViewOutput, reader_for, run_videos
from vidprune.pruning import token_grid
from vidprune.video import ViewPlan
from vidprune.video.upload import Uploader

if TYPE_CHECKING:
    from vidprune.evaluation.manifests import ManifestEntry


@dataclass(frozen=True)
class RunnerSettings:
    """How an evaluation runs; nothing here changes what it predicts beyond the last bits of a float.

    Attributes:
        workers: decode processes; 0 decodes in this process.
        timeout_s: seconds after which the decoding of one file is given up.
        views_per_batch: views that share a forward pass; None is one video at a time, whose rows are then bit for bit
            the same whatever else is evaluated. More than a video has lets several videos share a batch.
        flush_rows, flush_s: rows go to the disk when so many wait, or the first of them has waited so long.
        prefetch: on a GPU, upload each video's frames while the model runs on the one before, and start on them before
            the results of that one are taken; no bit changes.
        stored: "logits" keeps every view's logits, "probs" only their averaged softmax.
    """

    workers: int = 2
    timeout_s: float = 120.0
    views_per_batch: int | None = None
    flush_rows: int = 64
    flush_s: float = 30.0
    stored: str = "logits"
    prefetch: bool = True

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers must be at least 0, got {self.workers}")
        if not self.timeout_s > 0:
            raise ConfigError(f"timeout_s must be above 0, got {self.timeout_s}")
        if self.views_per_batch is not None and self.views_per_batch < 1:
            raise ConfigError(f"views_per_batch must be at least 1, got {self.views_per_batch}")
        if self.flush_rows < 1:
            raise ConfigError(f"flush_rows must be at least 1, got {self.flush_rows}")
        if self.stored not in STORED:
            raise ConfigError(f"store must be one of {', '.join(STORED)}, got {self.stored!r}")


def run_entries(
    entries: Sequence[tuple[int, ManifestEntry]],
    model: nn.Module,
    plan: ViewPlan,
    store: PredictionStore,
    settings: RunnerSettings,
    *,
    backend: str = "pyav",
    decode: Decode | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> None:
    """Evaluate `entries` (position in the manifest, entry) and append one row for each to `store`.

    A video that cannot be decoded becomes a row with its reason; nothing is put in its place. Rows that were computed
    when this is interrupted are stored before the interruption goes on.

    Args:
        decode: from a path to the frames of `plan`; by default `reader_for` the model with `backend`.
        on_row: called with every row, for a progress bar.

    Raises:
        StoreError: the store cannot be written. ConfigError: not even one view fits the device's memory.
    """
    decode = decode or reader_for([model], plan, backend=backend)
    by_position = dict(entries)
    jobs = ((position, str(entry.path)) for position, entry in entries)
    prepare = uploader_for(model, settings)
    decoded = decode_all(decode, jobs, workers=settings.workers, timeout_s=settings.timeout_s, prepare=prepare)
    predictor = _Predictor(model, plan, settings.views_per_batch)
    with (
        RowWriter(store, settings.flush_rows, settings.flush_s) as writer,
        closing(decoded),
    ):  # closing ends the workers
        for row in _rows(decoded, by_position, predictor, settings):
            writer.add(row)
            if on_row is not None:
                on_row(row)


def uploader_for(model: nn.Module, settings: RunnerSettings) -> Uploader | None:
    """What starts the uploads of decoded videos ahead of time: on a GPU, unless the settings say no."""
    device = next(model.parameters()).device
    return Uploader(device) if settings.prefetch and device.type == "cuda" else None


def _rows(
    decoded: Iterable[Decoded], entries: dict[int, ManifestEntry], predictor: _Predictor, settings: RunnerSettings
) -> Iterator[Row]:
    """One row per decoded item."""
    launched = _launched(decoded, predictor)
    for items, result in one_behind(launched) if settings.prefetch else launched:
        if result is None:
            yield from (failed_row(item, entries[item.position]) for item in items)
            continue
        model_s = result.wait() / len(items)
        for item, output in zip(items, result.output.split(predictor.plan.num_views), strict=True):
            entry = entries[item.position]
            yield predicted_row(
                item, entry, output, num_tokens=predictor.num_tokens, model_s=model_s, stored=settings.stored
            )


def _launched(decoded: Iterable[Decoded], predictor: _Predictor) -> Iterator[tuple[list[Decoded], InFlight | None]]:
    """Videos as the model starts on them, as many as share a batch; without a result, one that cannot be decoded."""
    waiting: list[Decoded] = []
    for item in decoded:
        if item.video is None:
            yield [item], None
            continue
        waiting.append(item)
        if len(waiting) == predictor.videos_per_batch:
            yield waiting, predictor.launch(waiting)
            waiting = []
    if waiting:
        yield waiting, predictor.launch(waiting)


class _Predictor:
    """`run_videos` that halves its batches when the device runs out of memory, and keeps to the smaller size."""

    def __init__(self, model: nn.Module, plan: ViewPlan, views_per_batch: int | None) -> None:
        self.model = model
        self.plan = plan
        self.batch = BatchSize(views_per_batch or plan.num_views)
        self.videos_per_batch = max(1, self.batch.size // plan.num_views)
        self.num_tokens = token_grid(model).num_tokens
        self.device = next(model.parameters()).device

    def launch(self, items: Sequence[Decoded]) -> InFlight:
        """Start on the views of decoded videos."""
        videos = [item.video for item in items if item.video is not None]

        def work(size: int) -> ViewOutput:
            return run_videos(videos, self.model, self.plan, views_per_batch=size)

        return launch(lambda: self.batch.run(work, len(videos) * self.plan.num_views), self.device)
