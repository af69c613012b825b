"""From what a model made of a video to its row, from rows to the store, and how many views share a forward pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, TypeVar

import torch

from vidprune.errors import ConfigError
from vidprune.evaluation.metrics import average_views
from vidprune.evaluation.store import PredictionStore, Row
from vidprune.evaluation.transport import Decoded
from vidprune.inference import ViewOutput

if TYPE_CHECKING:
    from vidprune.evaluation.manifests import ManifestEntry

T = TypeVar("T")

logger = logging.getLogger(__name__)


def predicted_row(
    item: Decoded, entry: ManifestEntry, output: ViewOutput, *, num_tokens: int, model_s: float, stored: str
) -> Row:
    """The row of a decoded video; a failure where the model's logits are not finite.

    Args:
        num_tokens: tokens per view of the host, for models that keep all.
        model_s: seconds that the model, its proposal and the cutting of views took.
        stored: "logits" or "probs", see `RunnerSettings`.
    """
    assert item.video is not None
    if not output.logits.isfinite().all():
        return failed_row(item, entry, "the model's logits are not finite; float16 overflows where bfloat16 does not")
    kept = output.mean_kept()
    return Row(
        position=item.position,
        video_id=entry.video_id,
        path=str(entry.path),
        label=entry.label,
        view_logits=output.logits.flatten().numpy() if stored == "logits" else None,
        probs=average_views(output.logits).numpy() if stored == "probs" else None,
        num_kept=num_tokens if kept is None else kept,
        num_errors=item.video.num_errors,
        num_filled=item.video.num_filled,
        decode_s=item.seconds,
        model_s=model_s,
    )


def failed_row(item: Decoded, entry: ManifestEntry, reason: str | None = None) -> Row:
    """The row of a video without a prediction; the reason is the decoder's unless another is given."""
    reason = reason or item.error or "no frames"
    return Row(item.position, entry.video_id, str(entry.path), entry.label, decode_s=item.seconds, error=reason)


class BatchSize:
    """How many views share a forward pass: halved when the device runs out of memory, and then kept so."""

    def __init__(self, size: int) -> None:
        self.size = size

    def run(self, work: Callable[[int], T], num_views: int) -> T:
        """`work(size)` on `num_views` views, again with a smaller size as long as memory does not suffice.

        Raises:
            ConfigError: not even one view fits the device's memory.
        """
        while True:
            try:
                return work(self.size)
            except torch.OutOfMemoryError as error:
                if self.size == 1:
                    message = str(error).splitlines()[0]
                    raise ConfigError(f"one view alone does not fit the device's memory: {message}") from None
            # Outside the handler: the exception would keep the failed batch's tensors alive.
            self.size = -(-min(self.size, num_views) // 2)
            torch.cuda.empty_cache()
            logger.warning("out of memory: going on with %d views per batch", self.size)


class RowWriter:
    """Collects rows and hands them to the store a part at a time; on leaving, also after an error, what is left."""

    def __init__(self, store: PredictionStore, flush_rows: int, flush_s: float) -> None:
        self.store = store
        self.flush_rows = flush_rows
        self.flush_s = flush_s
        self.rows: list[Row] = []
        self.oldest = 0.0
        self.broken = False

    def add(self, row: Row) -> None:
        if not self.rows:
            self.oldest = time.monotonic()
        self.rows.append(row)
        waited = time.monotonic() - self.oldest
        if len(self.rows) >= self.flush_rows or waited >= self.flush_s:
            self.flush()

    def flush(self) -> None:
        rows, self.rows = self.rows, []
        self.broken = True
        self.store.append(rows)
        self.broken = False

    def __enter__(self) -> RowWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.broken:
            self.flush()
