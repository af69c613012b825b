"""Several runs beside each other: each one's figures, and how far it is from the dense run among them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vidprune.evaluation.agreement import Agreement
from vidprune.evaluation.metrics import Accuracy
from vidprune.evaluation.report import EvaluationReport

_SHOWN_APART = ("keep_ratio", "proposal")


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
        """Of the first step that has one."""
        return _first(self.report.method, "keep_ratio")

    @property
    def proposal(self) -> str | None:
        return _first(self.report.method, "proposal")

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


def method_steps(method: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The steps of a method as a header gives it; a single one is a list of one."""
    return list(method.get("steps", [method]))


def _first(method: Mapping[str, Any], key: str) -> Any:
    return next((step[key] for step in method_steps(method) if step.get(key) is not None), None)


def varying_options(methods: list[Mapping[str, Any]]) -> list[str]:
    """For each method of several runs, the options in which the methods of its name differ, "r 16, start_block 6".

    Weights (by their hash) and what is shown apart, the first keep ratio and proposal, are left out.
    """
    options = [_options(method) for method in methods]
    texts = []
    for method, own in zip(methods, options, strict=True):
        alike = [other for other, found in zip(options, methods, strict=True) if found["name"] == method["name"]]
        varying = [key for key in own if any(other.get(key) != own[key] for other in alike)]
        texts.append(", ".join(f"{key} {own[key]}" for key in varying if own[key] is not None))  # None: not asked for
    return texts


def _options(method: Mapping[str, Any]) -> dict[str, Any]:
    steps = method_steps(method)
    shown_apart: set[str] = set()
    options: dict[str, Any] = {}
    for step in steps:
        for key, value in step.items():
            if key in _SHOWN_APART and key not in shown_apart:
                shown_apart.add(key)
            elif key != "name" and not key.endswith("_sha256"):
                options[key if len(steps) == 1 else f"{step['name']}.{key}"] = value
    return options
