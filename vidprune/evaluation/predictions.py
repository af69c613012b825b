"""What a store's rows say: for each video its most probable classes, by each way to average the views."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from vidprune.evaluation.metrics import AVERAGES, average_views, top_k
from vidprune.evaluation.store import PredictionStore

TOP = 5
PLAIN_COLUMNS = (
    *("position", "video_id", "path", "label"),
    *("num_kept", "num_errors", "num_filled", "decode_s", "model_s", "error"),
)


@dataclass(frozen=True)
class Part:
    """The rows of one part of a store; r of them, m of which did not fail.

    Attributes:
        columns: the plain columns of the store, each a list of r values.
        distributions: for each average that the store allows, float32 [m, classes].
    """

    columns: dict[str, list[Any]]
    distributions: dict[str, np.ndarray]

    @property
    def failed(self) -> np.ndarray:
        """bool [r]."""
        return _failed(self.columns)


@dataclass(frozen=True)
class Predictions:
    """The finished videos of a run, in the order of the manifest; n of them.

    Attributes:
        columns: the plain columns of the store, each a list of n values.
        ranked: for each average that the store allows ("probs", and "logits" where it keeps them) int64 [n, k], the
            classes from most to least probable, k the lower of 5 and the number of classes; -1 where the video failed.
        prob: float64 [n], probability of the first class of ranked["probs"], NaN where the video failed.
    """

    columns: dict[str, list[Any]]
    ranked: dict[str, np.ndarray]
    prob: np.ndarray

    @property
    def failed(self) -> np.ndarray:
        """bool [n]."""
        return _failed(self.columns)

    @property
    def labelled(self) -> np.ndarray:
        """bool [n]: decoded and with a label."""
        return ~self.failed & np.array([label is not None for label in self.columns["label"]], dtype=bool)


def read_predictions(store: PredictionStore) -> Predictions:
    """The predictions of a store; memory holds one part's logits at a time."""
    return gather_predictions(store, read_parts(store))


def read_parts(store: PredictionStore) -> Iterator[Part]:
    """Read a store, each part when it is asked for."""
    for table in store.read():
        yield Part({name: table[name].to_pylist() for name in PLAIN_COLUMNS}, _distributions(store, table))


def gather_predictions(store: PredictionStore, parts: Iterable[Part]) -> Predictions:
    """The predictions of the parts of a store."""
    averages = stored_averages(store)
    columns: dict[str, list[Any]] = {name: [] for name in PLAIN_COLUMNS}
    ranked: dict[str, list[np.ndarray]] = {average: [] for average in averages}
    prob: list[np.ndarray] = []
    for part in parts:
        for name in PLAIN_COLUMNS:
            columns[name] += part.columns[name]
        failed = part.failed
        for average in averages:
            ranked[average].append(_spread(top_k(part.distributions[average], TOP), failed, -1))
        prob.append(_spread(part.distributions["probs"].max(axis=1, initial=0.0), failed, np.nan))
    order = np.argsort(columns["position"], kind="stable")
    width = min(TOP, int(store.header["num_classes"]))
    return Predictions(
        columns={name: [values[i] for i in order] for name, values in columns.items()},
        ranked={
            name: np.concatenate(parts or [np.empty((0, width), np.int64)])[order] for name, parts in ranked.items()
        },
        prob=np.concatenate(prob or [np.empty(0)])[order],
    )


def stored_averages(store: PredictionStore) -> tuple[str, ...]:
    """The ways to average views that the store allows: both where it keeps every view's logits."""
    return AVERAGES if store.header["identity"]["store"] == "logits" else ("probs",)


def _distributions(store: PredictionStore, table: Any) -> dict[str, np.ndarray]:
    """For each average, float32 [m, classes] of the m videos of a part that did not fail."""
    num_classes, averages = int(store.header["num_classes"]), stored_averages(store)
    if "logits" not in averages:
        values = table["probs"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return {"probs": values.reshape(-1, num_classes)}
    decoded = int(table["view_logits"].is_valid().to_numpy().sum())
    values = table["view_logits"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    view_logits = torch.tensor(values).reshape(decoded, -1 if decoded else 1, num_classes)  # [m, V, classes]
    return {average: average_views(view_logits, average).numpy() for average in averages}


def _failed(columns: dict[str, list[Any]]) -> np.ndarray:
    return np.array([error is not None for error in columns["error"]], dtype=bool)


def _spread(values: np.ndarray, failed: np.ndarray, filler: float) -> np.ndarray:
    """`values` of the videos that did not fail, in the places of all, `filler` in the others."""
    out = np.full((len(failed), *values.shape[1:]), filler, dtype=values.dtype)
    out[~failed] = values
    return out
