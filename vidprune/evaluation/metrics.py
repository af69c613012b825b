"""Accuracy with its uncertainty, and with its denominator said in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from vidprune.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

AVERAGES = ("probs", "logits")


def average_views(view_logits: Tensor, average: str = "probs") -> Tensor:
    """One distribution per video from the logits of its views, [..., V, classes] -> [..., classes].

    "probs" is the mean of the views' softmax (both published protocols), "logits" the softmax of the mean logits.
    """
    if average not in AVERAGES:
        raise ConfigError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}")
    if average == "probs":
        return view_logits.softmax(dim=-1).mean(dim=-2)
    return view_logits.mean(dim=-2).softmax(dim=-1)


@dataclass(frozen=True)
class Share:
    """`num_correct` of `num_total`, with the bounds of its 95 % Wilson interval; fractions in [0, 1]."""

    num_correct: int
    num_total: int
    value: float
    low: float
    high: float

    @classmethod
    def of(cls, num_correct: int, num_total: int) -> Share | None:
        """None where there is nothing to take a share of."""
        if num_total == 0:
            return None
        return cls(num_correct, num_total, num_correct / num_total, *wilson_interval(num_correct, num_total))


@dataclass(frozen=True)
class Accuracy:
    """Accuracies of one way to average the views.

    Attributes:
        average: "probs" or "logits".
        top1, top5: over the labelled videos that were decoded.
        top1_listed, top5_listed: over all labelled videos listed, those that failed counted as wrong.
        mean_class: mean over the classes present (decoded) of their top-1 accuracy.
    """

    average: str
    top1: Share | None
    top5: Share | None
    top1_listed: Share | None
    top5_listed: Share | None
    mean_class: float | None


@dataclass(frozen=True)
class ClassResult:
    """One class: its videos, how many came out right, and the wrong class that they most often came out as."""

    label: int
    num_videos: int
    num_correct: int
    confused_with: int | None
    num_confused: int


def top_k(probs: np.ndarray, k: int) -> np.ndarray:
    """The `k` most probable classes per row, best first, ties to the lower index: [n, classes] -> int64 [n, k]."""
    return np.argsort(-probs, axis=1, kind="stable")[:, :k]


def accuracy(ranked: np.ndarray, labels: np.ndarray, num_listed: int, average: str = "probs") -> Accuracy:
    """Accuracies of labelled, decoded videos.

    Args:
        ranked: int64 [n, k], classes of each video from most to least probable; k is 5, or all classes where fewer.
        labels: int64 [n].
        num_listed: labelled videos in the manifest, at least n.
    """
    hits = ranked == labels[:, None]  # [n, k]
    first, within = int(hits[:, :1].sum()), int(hits.sum())
    per_class = [row.num_correct / row.num_videos for row in per_class_results(ranked, labels)]
    return Accuracy(
        average=average,
        top1=Share.of(first, len(labels)),
        top5=Share.of(within, len(labels)),
        top1_listed=Share.of(first, num_listed),
        top5_listed=Share.of(within, num_listed),
        mean_class=float(np.mean(per_class)) if per_class else None,
    )


def per_class_results(ranked: np.ndarray, labels: np.ndarray) -> list[ClassResult]:
    """One result per class present in `labels`, in index order. Arguments as in `accuracy`."""
    results = []
    for label in np.unique(labels):
        predicted = ranked[labels == label, 0]
        wrong, counts = np.unique(predicted[predicted != label], return_counts=True)
        most = int(counts.argmax()) if len(wrong) else None  # ties: the lower class
        results.append(
            ClassResult(
                label=int(label),
                num_videos=len(predicted),
                num_correct=int((predicted == label).sum()),
                confused_with=None if most is None else int(wrong[most]),
                num_confused=0 if most is None else int(counts[most]),
            )
        )
    return results


def worst_classes(results: Sequence[ClassResult], limit: int = 10) -> list[ClassResult]:
    """The classes of lowest accuracy that have a mistake at all, worst first; ties to the one with more videos."""
    wrong = [row for row in results if row.num_correct < row.num_videos]
    return sorted(wrong, key=lambda row: (row.num_correct / row.num_videos, -row.num_videos, row.label))[:limit]


def wilson_interval(num_correct: int, num_total: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a proportion; 95 % by default.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 1927.
    """
    if not 0 <= num_correct <= num_total or num_total == 0:
        raise ConfigError(f"need 0 <= correct <= total and total > 0, got {num_correct} of {num_total}")
    p = num_correct / num_total
    centre = p + z * z / (2 * num_total)
    half = z * math.sqrt(p * (1 - p) / num_total + z * z / (4 * num_total**2))
    scale = 1 + z * z / num_total
    # The ends are exact where they must be, not a rounding error inside.
    low = 0.0 if num_correct == 0 else (centre - half) / scale
    high = 1.0 if num_correct == num_total else (centre + half) / scale
    return low, high
