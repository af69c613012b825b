"""Results that a GPU is still at work on, so that it never waits for what this process makes of the last ones.

Between two videos the host turns logits into a row, stores rows, takes the next frames and cuts their views. A GPU that
had to hand over its results first would idle meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from vidprune.inference import ViewOutput

T = TypeVar("T")


@dataclass(frozen=True)
class InFlight:
    """An output on its way.

    Attributes:
        output: in the host's memory; to be read only after `wait`.
        host_seconds: what starting it took; on a CPU, all of it.
        events: CUDA's, from before the work and after its last copy; None where nothing is left to wait for.
    """

    output: ViewOutput
    host_seconds: float
    events: tuple[Any, Any] | None = None

    def wait(self) -> float:
        """Wait until the output is there; the seconds that the device was at it."""
        if self.events is None:
            return self.host_seconds
        start, end = self.events
        end.synchronize()
        return float(start.elapsed_time(end)) / 1e3


def launch(work: Callable[[], ViewOutput], device: torch.device) -> InFlight:
    """Start `work` on its device: a GPU's is queued, with the copies of its results; a CPU's is done on return."""
    events = None
    if device.type == "cuda":
        events = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        events[0].record(torch.cuda.current_stream(device))
    start = time.perf_counter()
    output = work().to_host(wait=events is None)
    seconds = time.perf_counter() - start
    if events is not None:
        events[1].record(torch.cuda.current_stream(device))
    return InFlight(output, seconds, events)


def one_behind(launched: Iterable[tuple[T, InFlight | None]]) -> Iterator[tuple[T, InFlight | None]]:
    """The same pairs in the same order, each passed on at once where it is done, else when the next one has started."""
    held = None
    for pair in launched:
        if held is not None:
            yield held
        done = pair[1] is None or pair[1].events is None
        if done:
            yield pair
        held = None if done else pair
    if held is not None:
        yield held
