"""What verbs print with: a console, a progress bar on stderr, and the line that says what runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress
    from torch import nn

    from vidprune.video import ViewPlan

T = TypeVar("T")
RANDOM_WEIGHTS = "random weights"


def console() -> Console:
    """For results, on stdout."""
    return Console(highlight=False)


def warn(message: str) -> None:
    """One line on stderr."""
    print(f"vidprune: {message}", file=sys.stderr)


def progress_bar(*fields: str, silent: bool = False) -> Progress:
    """A progress bar on stderr that vanishes when it is done; `silent`, or where stderr is no terminal, it never shows.

    Args:
        fields: names of a task's fields to show behind the count; styles go into their values.
    """
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    err = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *(TextColumn(f"{{task.fields[{field}]}}") for field in fields),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
        disable=silent or not err.is_terminal,
        transient=True,
    )


@contextmanager
def progress(items: Sequence[T], description: str) -> Iterator[Iterator[T]]:
    """Iterate over `items` with a progress bar."""
    with progress_bar() as bar:
        yield iter(bar.track(items, description=description))


def describe_run(model: nn.Module, plan: ViewPlan) -> dict[str, Any]:
    """What runs, for screens and JSON alike; random weights are said to be random."""
    from vidprune.pruning import host_of, is_pruned, token_grid

    host = host_of(model)
    facts: dict[str, Any] = {
        "model_weights": getattr(host, "checkpoint_source", None) or RANDOM_WEIGHTS,
        "method": "dense",
        "num_tokens": token_grid(model).num_tokens,
        "num_kept": token_grid(model).num_tokens,
        "views": f"{plan.num_segments}x{plan.num_crops}",
        "protocol": plan.protocol,
    }
    if is_pruned(model):
        method = model.methods[0]
        facts |= {
            "method": "+".join(step.name for step in model.methods),
            "keep_ratio": getattr(method, "keep_ratio", None),
            "num_kept": None if getattr(model, "ragged", False) else model.num_final(),
        }
        proposal = getattr(model.steps[0], "proposal", None)
        if proposal is not None:
            facts |= {"proposal": proposal.name, "proposal_weights": proposal.checkpoint_source or RANDOM_WEIGHTS}
    return facts


def run_line(facts: dict[str, Any], model_name: str) -> str:
    """`facts` of `describe_run` in one line; weight files by their names alone."""
    parts = [f"{model_name} ({Path(facts['model_weights']).name})", facts["method"]]
    if facts.get("proposal") and facts["method"].startswith("papr"):
        parts[-1] += f" by {facts['proposal']} ({Path(facts['proposal_weights']).name})"
    parts.append(f"{facts['num_kept'] or 'a varying number'} of {facts['num_tokens']} tokens")
    parts.append(f"{facts['views']} views, protocol {facts['protocol']}")
    return " · ".join(parts)


def warn_of_random_weights(facts: dict[str, Any]) -> None:
    """A line on stderr for a model or a proposal, of `describe_run`, that nobody trained."""
    for what, flag in (("model", "--checkpoint"), ("proposal", "--proposal-checkpoint")):
        if facts.get(f"{what}_weights") == RANDOM_WEIGHTS:
            warn(f"warning: {what} {facts[what]} has random weights, so results mean nothing; give {flag} FILE")
