"""One config in, finished runs out: what `vidprune.evaluate`, `vidprune.sweep` and the command line call."""

from vidprune.runs.evaluating import evaluate
from vidprune.runs.sweeping import SweepReport, sweep

__all__ = ["SweepReport", "evaluate", "sweep"]
