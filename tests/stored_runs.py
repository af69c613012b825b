"""Finished runs without a model: stores filled with given logits."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.evaluations import NUM_CLASSES, new_store
from vidprune.evaluation.store import Row

NUM_VIEWS = 6  # 2 segments x 3 crops, as the stores of tests.evaluations say
DENSE = {"name": "dense"}


def cost(vit: float, proposal: float = 0.0) -> dict[str, Any]:
    return {"dense_gmacs": 180.0, "vit_gmacs": vit, "proposal_gmacs": proposal, "convention": "matmul"}


def draw_logits(seed: int, num_videos: int = 40) -> np.ndarray:
    """float32 [n, V, classes]."""
    return np.random.default_rng(seed).normal(size=(num_videos, NUM_VIEWS, NUM_CLASSES)).astype(np.float32) * 2


def stored_run(
    folder: Path,
    view_logits: np.ndarray,
    *,
    labels: Sequence[int | None],
    names: Sequence[str] | None = None,
    failed: Collection[int] = (),
    missing: Collection[int] = (),
    stored: str = "logits",
    model_s: float = 0.6,
    facts: dict[str, Any] | None = None,
    **identity: Any,
) -> Path:
    """A run over len(view_logits) videos, its rows in two parts; `missing` positions have no row."""
    names = names or [f"video {i}" for i in range(len(view_logits))]
    more = {"num_labelled": sum(label is not None for label in labels)} | (facts or {})
    store = new_store(folder, len(names), more, store=stored, **identity)
    rows = []
    for position, (name, logits, label) in enumerate(zip(names, view_logits, labels, strict=True)):
        values: dict[str, Any] = {"model_s": model_s, "decode_s": 0.1, "num_kept": 4 + position % 2}
        if stored == "logits":
            values["view_logits"] = logits.ravel()
        else:
            values["probs"] = softmax(logits).mean(axis=0).astype(np.float32)
        if position in failed:
            values = {"error": f"cannot decode {name!r}: nothing in it"}
        if position not in missing:
            rows.append(Row(position, name, name, label, **values))
    store.append(rows[::2])
    store.append(rows[1::2])
    return folder


def softmax(values: np.ndarray) -> np.ndarray:
    exp = np.exp(values.astype(np.float64) - values.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


DENSE_LOGITS = draw_logits(1)
RUN_LOGITS = DENSE_LOGITS + 0.7 * draw_logits(2)
LABELS: list[int | None] = [
    None if i % 9 == 4 else int(logits.mean(axis=0).argmax() + i % 2) % NUM_CLASSES
    for i, logits in enumerate(DENSE_LOGITS)
]
"""Of a dense run and one beside it: some videos have no label, and of the others dense gets half right."""
