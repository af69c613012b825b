"""The figures of a run, from its store alone: no model is loaded."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from vidprune.evaluation.identity import differences
from vidprune.evaluation.metrics import Accuracy, ClassResult, accuracy, per_class_results, worst_classes
from vidprune.evaluation.predictions import Predictions, read_predictions
from vidprune.evaluation.store import PredictionStore


@dataclass(frozen=True)
class Failure:
    """A video without a prediction, and why."""

    video_id: str
    path: str
    reason: str


@dataclass(frozen=True)
class Cost:
    """GMACs per view, as the header gives them.

    Attributes:
        dense_gmacs: of the host with every token.
        vit_gmacs: of the host on the tokens that are kept.
        proposal_gmacs: of what marks those tokens, apart.
        convention: what was counted, see `vidprune.profiling.flops`.
    """

    dense_gmacs: float
    vit_gmacs: float
    proposal_gmacs: float
    convention: str

    @property
    def total_gmacs(self) -> float:
        return self.vit_gmacs + self.proposal_gmacs

    @property
    def reduction(self) -> float:
        """How many times fewer operations than dense, proposal included."""
        return self.dense_gmacs / self.total_gmacs


@dataclass(frozen=True)
class EvaluationReport:
    """A run in figures.

    Attributes:
        run: its folder.
        model, weights: name, and where the weights came from.
        method: name and options.
        views: fields of the view plan; `protocol` (with version) is among the words that identify a published figure.
        environment: versions, device and source revision of the run that began.
        other_environments: how those differ that went on with it, and how many rows they wrote.
        num_listed: videos in the manifest; `num_labelled` of them have a label.
        num_decoded: videos with a prediction; `num_failed` have none, `num_unfinished` were not reached yet.
        num_damaged: decoded videos with damaged packets or frames filled in.
        num_kept, num_tokens: tokens per view after and before pruning; None where that was not recorded. Where every
            video keeps its own number, `num_kept` is their mean.
        cost: None where the run did not record it.
        accuracies: by probs and, where the store keeps logits, by logits; empty without labels.
        worst: the classes with the lowest accuracy, by probs.
        decode_s, model_s: mean seconds per decoded video, in one worker and on the device.
    """

    run: str
    digest: str
    model: str
    weights: str
    method: dict[str, Any]
    views: dict[str, Any]
    protocol: str
    dtype: str
    environment: dict[str, Any]
    other_environments: tuple[str, ...]
    manifest: dict[str, Any]
    num_listed: int
    num_labelled: int
    num_decoded: int
    num_failed: int
    num_unfinished: int
    num_damaged: int
    num_kept: float | None
    num_tokens: int | None
    cost: Cost | None
    accuracies: tuple[Accuracy, ...]
    worst: tuple[ClassResult, ...]
    class_names: tuple[str, ...]
    failures: tuple[Failure, ...]
    decode_s: float | None
    model_s: float | None

    @property
    def is_complete(self) -> bool:
        """Every listed video has a prediction or a reason for having none."""
        return self.num_unfinished == 0

    @property
    def denominator(self) -> str:
        """The counts in words."""
        text = f"{self.num_listed} videos listed, {self.num_decoded} decoded, {self.num_failed} failed"
        if self.num_unfinished:
            text += f", {self.num_unfinished} not evaluated yet"
        if self.num_labelled < self.num_listed:
            text += f"; {self.num_labelled} have a label"
        return text

    @property
    def tokens(self) -> str:
        """The tokens per view in words."""
        if self.num_kept is None:
            return "not recorded"
        kept = f"{self.num_kept:.0f}" if self.keeps_a_fixed_number else f"{self.num_kept:.1f} on average"
        return f"{kept} of {self.num_tokens}"

    @property
    def keeps_a_fixed_number(self) -> bool:
        """Every view keeps as many tokens as any other; a mean that is whole reads the same."""
        return self.num_kept is not None and float(self.num_kept).is_integer()

    @property
    def num_views(self) -> int:
        return int(self.views["num_segments"]) * int(self.views["num_crops"])

    @property
    def seconds_per_view(self) -> float | None:
        """Mean time on the device per view; None where that was not recorded."""
        return None if self.model_s is None else self.model_s / self.num_views

    def failure_kinds(self) -> list[tuple[str, int]]:
        """Reasons with what names a single file taken out, and how often each came up, most frequent first."""
        return Counter(_kind(failure) for failure in self.failures).most_common()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"is_complete": self.is_complete, "denominator": self.denominator}


def read_report(folder: str | Path) -> EvaluationReport:
    """The report of the run in `folder`. Raises `StoreError` where there is none."""
    store = PredictionStore.open(folder)
    return make_report(store, read_predictions(store))


def make_report(store: PredictionStore, predictions: Predictions) -> EvaluationReport:
    """The figures of predictions and their store's header."""
    header, identity, columns = store.header, store.header["identity"], predictions.columns
    failed = predictions.failed
    num_rows = len(failed)
    labels, ranked = _labelled(predictions)
    num_labelled = header["num_labelled"]
    accuracies = [accuracy(ranked[average], labels, num_labelled, average) for average in ranked if num_labelled]
    return EvaluationReport(
        run=str(store.folder),
        digest=header["digest"],
        model=identity["model"]["name"],
        weights=header["weights"],
        method=identity["method"],
        views=identity["views"],
        protocol=f"{identity['views']['protocol']} v{identity['protocol_version']}",
        dtype=identity["dtype"],
        environment=header["environment"],
        other_environments=_other_environments(store),
        manifest=header["manifest"],
        num_listed=header["num_listed"],
        num_labelled=num_labelled,
        num_decoded=int((~failed).sum()),
        num_failed=int(failed.sum()),
        num_unfinished=header["num_listed"] - num_rows,
        num_damaged=sum(
            bool(errors or filled) for errors, filled in zip(columns["num_errors"], columns["num_filled"], strict=True)
        ),
        num_kept=_mean(columns["num_kept"], ~failed) if header["num_kept"] is None else header["num_kept"],
        num_tokens=header["num_tokens"],
        cost=_cost(header.get("cost")),
        accuracies=tuple(accuracies),
        worst=tuple(worst_classes(per_class_results(ranked["probs"], labels))),
        class_names=tuple(header["class_names"]),
        failures=tuple(
            Failure(*row)
            for row in zip(columns["video_id"], columns["path"], columns["error"], strict=True)
            if row[2] is not None
        ),
        decode_s=_mean(columns["decode_s"], ~failed),
        model_s=_mean(columns["model_s"], ~failed),
    )


def _cost(fact: dict[str, Any] | None) -> Cost | None:
    return None if fact is None else Cost(**{field.name: fact[field.name] for field in fields(Cost)})


def _other_environments(store: PredictionStore) -> tuple[str, ...]:
    changes = [(differences(store.header["environment"], found), count) for found, count in store.environments()]
    return tuple(f"{count} rows: {'; '.join(changed)}" for changed, count in changes if changed)


def _labelled(predictions: Predictions) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels int64 [m] and ranked classes [m, k] of the decoded videos that have a label."""
    chosen = np.flatnonzero(predictions.labelled)
    labels = np.array([predictions.columns["label"][i] for i in chosen], dtype=np.int64)
    return labels, {average: ranked[chosen] for average, ranked in predictions.ranked.items()}


def _mean(values: list[float | None], chosen: np.ndarray) -> float | None:
    kept = [value for value, keep in zip(values, chosen, strict=True) if keep and value is not None]
    return float(np.mean(kept)) if kept else None


def _kind(failure: Failure) -> str:
    """ "cannot read '/data/a.mp4': no such file" -> "no such file"."""
    _, found, rest = failure.reason.partition(f"{failure.path!r}: ")
    return rest if found else failure.reason
