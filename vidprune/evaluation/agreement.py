"""How far a pruned run's predictions are from the dense model's: needs no labels, so z can be chosen on any videos."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidprune.errors import ConfigError
from vidprune.evaluation.metrics import Share
from vidprune.evaluation.predictions import Part, stored_averages
from vidprune.evaluation.store import PredictionStore

_FLOOR = float(np.finfo(np.float32).tiny)  # a probability that float32 rounds to 0 must not make KL infinite


@dataclass(frozen=True)
class PairedDifference:
    """Top-1 of a run less that of the dense model, on the labelled videos that both decoded; fractions.

    Attributes:
        num_gained, num_lost: videos that only the run, or only the dense model, gets right.
        low, high: 95 % interval. The same videos are judged twice, so it is narrower than two separate intervals say.
    """

    num_gained: int
    num_lost: int
    num_total: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, num_gained: int, num_lost: int, num_total: int) -> PairedDifference | None:
        """None where there is nothing to compare.

        Source: Agresti and Min, "Simple improved confidence intervals for comparing matched proportions", Statistics
        in Medicine 2005: a half is added to each of the four counts, then Wald's interval is taken.
        """
        if num_total == 0:
            return None
        total, gained, lost = num_total + 2, num_gained + 0.5, num_lost + 0.5
        centre = (gained - lost) / total
        half = 1.959964 * math.sqrt(gained + lost - (gained - lost) ** 2 / total) / total
        value = (num_gained - num_lost) / num_total
        return cls(num_gained, num_lost, num_total, value, max(-1.0, centre - half), min(1.0, centre + half))


@dataclass(frozen=True)
class Agreement:
    """A run beside the dense run, over the videos that both decoded.

    Attributes:
        average: how the views were averaged in both, "probs" or "logits".
        same: the share of videos with the same first class.
        kl: mean over the videos of KL(dense || run) between their averaged probs, in nats.
        top1: difference in top-1; None without labels.
    """

    average: str
    same: Share
    kl: float
    top1: PairedDifference | None


@dataclass(frozen=True)
class Reference:
    """A dense run's predictions in memory.

    Attributes:
        num_listed: videos in its manifest.
        videos: for each position of the manifest that has a row: (video_id, label, its row in `probs`; -1: it failed).
        probs: for each average that the store allows, float32 [n, classes] of the videos that were decoded.
    """

    num_listed: int
    videos: dict[int, tuple[str, int | None, int]]
    probs: dict[str, np.ndarray]


def make_reference(store: PredictionStore, parts: Sequence[Part]) -> Reference:
    """A dense run's predictions from the parts of its store."""
    videos: dict[int, tuple[str, int | None, int]] = {}
    count = 0
    for part in parts:
        for position, video_id, label, failed in _rows(part):
            videos[position] = (video_id, label, -1 if failed else count)
            count += not failed
    empty = np.empty((0, int(store.header["num_classes"])), np.float32)
    probs = {
        average: np.concatenate([empty, *(part.distributions[average] for part in parts)])
        for average in stored_averages(store)
    }
    return Reference(int(store.header["num_listed"]), videos, probs)


class BesideDense:
    """How far a run is from a dense one, counted as the parts of the run's store are read.

    Attributes:
        refusal: why the two cannot be compared: their lists of videos differ, and where. Empty where they can.
    """

    def __init__(self, reference: Reference, store: PredictionStore) -> None:
        self._reference = reference
        averages = [average for average in stored_averages(store) if average in reference.probs]
        self._counts = {average: _Counts() for average in averages}
        self.refusal = ""
        if int(store.header["num_listed"]) != reference.num_listed:
            self.refusal = f"another list of videos: {store.header['num_listed']} against {reference.num_listed} listed"

    def add(self, part: Part) -> None:
        """Compare the videos of one more part, unless the lists were found to differ."""
        if self.refusal:
            return
        try:
            pairs = _pairs(self._reference, part)
        except ConfigError as error:
            self.refusal = str(error)
            return
        for average, counts in self._counts.items():
            dense, run = self._reference.probs[average][pairs.dense], part.distributions[average][pairs.run]
            counts.add(dense, run, pairs.labels)

    def agreements(self) -> tuple[Agreement, ...]:
        """One for each average that both stores allow; none where no video was decoded by both."""
        return tuple(counts.result(average) for average, counts in self._counts.items() if counts.num_total)


@dataclass(frozen=True)
class _Pairs:
    """Of the videos of one part that both decoded: rows in either's probs, and labels (-1: none); int64 [m] each."""

    dense: np.ndarray
    run: np.ndarray
    labels: np.ndarray


def _pairs(reference: Reference, part: Part) -> _Pairs:
    """Raises `ConfigError` where the lists of videos differ."""
    found: list[tuple[int, int, int]] = []
    row = 0
    for position, video_id, label, failed in _rows(part):
        known_id, known_label, dense_row = reference.videos.get(position, (video_id, label, -1))
        if known_id != video_id:
            raise ConfigError(f"another list of videos: number {position + 1} is {video_id!r} against {known_id!r}")
        if None not in (label, known_label) and label != known_label:
            raise ConfigError(f"other labels: {video_id!r} has {label} against {known_label}")
        if not failed and dense_row >= 0:
            found.append((dense_row, row, -1 if label is None else label))
        row += not failed
    dense, run, labels = np.array(found, dtype=np.int64).reshape(-1, 3).T
    return _Pairs(dense, run, labels)


def _rows(part: Part) -> zip[tuple[int, str, int | None, bool]]:
    """(position, video_id, label, failed) of every row of a part."""
    columns = [part.columns[name] for name in ("position", "video_id", "label")]
    return zip(*columns, part.failed.tolist(), strict=True)


@dataclass
class _Counts:
    """Sums over parts."""

    num_total: int = 0
    num_same: int = 0
    kl_sum: float = 0.0
    num_labelled: int = 0
    num_gained: int = 0
    num_lost: int = 0

    def add(self, dense: np.ndarray, run: np.ndarray, labels: np.ndarray) -> None:
        """`dense` and `run`: probs float32 [m, classes] of the same videos."""
        dense_first, run_first = dense.argmax(axis=1), run.argmax(axis=1)
        self.num_total += len(labels)
        self.num_same += int((dense_first == run_first).sum())
        self.kl_sum += float(kl_divergence(dense, run).sum())
        dense_right, run_right = dense_first == labels, run_first == labels  # false without a label
        self.num_labelled += int((labels >= 0).sum())
        self.num_gained += int((run_right & ~dense_right).sum())
        self.num_lost += int((dense_right & ~run_right).sum())

    def result(self, average: str) -> Agreement:
        same = Share.of(self.num_same, self.num_total)
        assert same is not None  # asked only where there are videos
        top1 = PairedDifference.of(self.num_gained, self.num_lost, self.num_labelled)
        return Agreement(average, same, self.kl_sum / self.num_total, top1)


def kl_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """KL(p || q) in nats of each row, [n, classes] twice -> float64 [n]; rows are normalised, zeros floored."""
    p, q = (np.maximum(values.astype(np.float64), _FLOOR) for values in (p, q))
    p, q = p / p.sum(axis=1, keepdims=True), q / q.sum(axis=1, keepdims=True)
    return np.sum(p * np.log(p / q), axis=1).clip(min=0.0)
