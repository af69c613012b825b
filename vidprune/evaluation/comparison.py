"""Several runs beside each other: each one's figures, and how far it is from the dense run among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vidprune.evaluation.agreement import Agreement
from vidprune.evaluation.metrics import Accuracy
from vidprune.evaluation.report import EvaluationReport

_SHOWN_APART = ("name", "keep_ratio", "proposal")


@dataclass(frozen=True)
class ComparedRun:
    """One run of a comparison.

    Attributes:
        name: the shortest end of its folder's path that no other run has.
        report: its figures.
        header: its store's header: config, versions.
        options: what tells its method from the others of that name, besides keep ratio and proposal; "" for nothing.
        dense: `name` of the dense run of the same model, weights and views that it is compared with; None without one.
        agreements: with that run, one for each way to average the views; empty without one.
        speedup: that run's seconds per view over this one's, where both ran on the same device in the same precision.
        note: why it is not compared with a dense run, or what a reader must know of how it is; "" for nothing.
    """

    name: str
    report: EvaluationReport
    header: Mapping[str, Any] = field(repr=False)
    options: str = ""
    dense: str | None = None
    agreements: tuple[Agreement, ...] = ()
    speedup: float | None = None
    note: str = ""

    @property
    def is_dense(self) -> bool:
        return bool(self.report.method["name"] == "dense")

    @property
    def keep_ratio(self) -> float | None:
        return self.report.method.get("keep_ratio")

    @property
    def proposal(self) -> str | None:
        return self.report.method.get("proposal")

    @property
    def method(self) -> str:
        """The method in words, its keep ratio apart."""
        parts = [self.report.method["name"], self.proposal, self.options]
        return ", ".join(part for part in parts if part)

    def accuracy(self, average: str = "probs") -> Accuracy | None:
        return next((one for one in self.report.accuracies if one.average == average), None)

    def agreement(self, average: str = "probs") -> Agreement | None:
        return next((one for one in self.agreements if one.average == average), None)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: those of the report, and what the comparison adds."""
        return self.report.as_dict() | {
            "name": self.name,
            "seconds_per_view": self.report.seconds_per_view,
            "compared_with": self.dense,
            "agreements": [asdict(one) for one in self.agreements],
            "speedup": self.speedup,
            "note": self.note,
        }


@dataclass(frozen=True)
class Comparison:
    """The runs in the order they were named."""

    runs: tuple[ComparedRun, ...]

    @property
    def sorted_runs(self) -> list[ComparedRun]:
        """Model by model, dense first, then method by method, the highest keep ratio first."""
        models = list(dict.fromkeys(model_key(run.report) for run in self.runs))
        methods = list(dict.fromkeys(run.method for run in self.runs))
        return sorted(
            self.runs,
            key=lambda run: (
                models.index(model_key(run.report)),
                not run.is_dense,
                methods.index(run.method),
                -(run.keep_ratio or 0.0),
            ),
        )


def model_key(report: EvaluationReport) -> tuple[str, str]:
    """What makes two runs of one model, for tables."""
    return report.model, report.weights


def varying_options(methods: list[Mapping[str, Any]]) -> list[str]:
    """For each method of several runs, the options in which the methods of its name differ, "r 16, start_block 6".

    Weights (by their hash) and what is shown apart, keep ratio and proposal, are left out.
    """
    texts = []
    for method in methods:
        alike = [other for other in methods if other["name"] == method["name"]]
        varying = [
            key
            for key in method
            if key not in _SHOWN_APART
            and not key.endswith("_sha256")
            and any(other.get(key) != method[key] for other in alike)
        ]
        texts.append(", ".join(f"{key} {method[key]}" for key in varying))
    return texts
