"""Which of several runs to take: the fastest that loses no more against its dense run than is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from vidprune.evaluation.comparison import ComparedRun, Comparison

_ROUNDING = 1e-9  # of a loss that is as large as allowed


@dataclass(frozen=True)
class Loss:
    """What a run loses against its dense run, in percent of the videos that both decoded.

    Attributes:
        value: points of top-1; without labels, the share of videos with another first class than the dense run's,
            which is the most that top-1 can have lost.
        high: upper end of its 95 % interval.
        by_labels: which of the two.
    """

    value: float
    high: float
    by_labels: bool


@dataclass(frozen=True)
class Choice:
    """Among the runs beside one dense run.

    Attributes:
        dense: that run's name.
        candidates: the runs compared with it, with what each loses, the smallest loss first.
        taken: the one of them to take; None where all lose too much.
    """

    dense: str
    candidates: tuple[tuple[ComparedRun, Loss], ...]
    taken: tuple[ComparedRun, Loss] | None

    @property
    def run(self) -> ComparedRun | None:
        return None if self.taken is None else self.taken[0]

    def text(self, max_loss: float) -> str:
        """The choice in a sentence."""
        least, least_loss = self.candidates[0]
        of_what = "points of top-1" if least_loss.by_labels else "% of the dense classes"
        if self.taken is None:
            return (
                f"beside {self.dense}: none of {len(self.candidates)} runs loses at most {max_loss:g} {of_what}; "
                f"the least is {least_loss.value:.2f}, by {least.name}"
            )
        run, loss = self.taken
        faster = "" if run.speedup is None else f" ({run.speedup:.2f}x as fast)"
        unsure = ": more videos would make it sure" if loss.high > max_loss else ""
        change = f"loses {loss.value:.2f}" if loss.value >= 0 else f"gains {-loss.value:.2f}"
        return (
            f"beside {self.dense}: take {run.name}{faster}; it {change} {of_what}, "
            f"and loses at most {loss.high:.2f} at 95 %{unsure}"
        )


def choose(comparison: Comparison, max_loss: float) -> list[Choice]:
    """One choice for each dense run that others are compared with, in the order of the runs.

    Fastest is the greatest speed-up where all that qualify have one, else the fewest operations.
    """
    choices = []
    for dense in dict.fromkeys(run.dense for run in comparison.runs if run.dense is not None):
        losses = [(run, loss_of(run)) for run in comparison.runs if run.dense == dense]
        candidates = sorted(((run, loss) for run, loss in losses if loss), key=lambda pair: pair[1].value)
        fit = [(run, loss) for run, loss in candidates if loss.value <= max_loss + _ROUNDING]
        if candidates:
            choices.append(Choice(dense, tuple(candidates), _fastest(fit)))
    return choices


def loss_of(run: ComparedRun) -> Loss | None:
    """By the views' averaged probs; None for a run that is not compared with a dense one."""
    agreement = run.agreement()
    if agreement is None:
        return None
    if agreement.top1 is not None:
        return Loss(0.0 - 100 * agreement.top1.value, 0.0 - 100 * agreement.top1.low, by_labels=True)  # not -0.0
    return Loss(100 * (1 - agreement.same.value), 100 * (1 - agreement.same.low), by_labels=False)


def _fastest(fit: list[tuple[ComparedRun, Loss]]) -> tuple[ComparedRun, Loss] | None:
    if not fit:
        return None
    if all(run.speedup is not None for run, _ in fit):
        return max(fit, key=lambda pair: pair[0].speedup or 0.0)
    return min(fit, key=lambda pair: inf if (cost := pair[0].report.cost) is None else cost.total_gmacs)
