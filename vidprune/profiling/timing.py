"""Times that can be compared: ways of doing the same thing run in turn, in one process, and are judged by ratios.

A machine's speed drifts by tens of per cent while something is measured; the ratio of two ways in the same round does
not. So every figure here is a median over rounds, a ratio is the median of the rounds' ratios, and the order of the
ways is reversed every other round.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

Way = Callable[[], object]


def time_in_turn(
    ways: Mapping[str, Way],
    *,
    rounds: int,
    warm_up: int = 1,
    device: str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every way in every round.

    Args:
        warm_up: untimed runs of each way first: caches, lazy initialisation, compilation.
        device: on a GPU, the clock is read when its work is done.
        clock: `time.perf_counter` for wall time, `time.process_time` for the CPU time of all threads, which other work
            on the machine disturbs less.
    """
    for way in ways.values():
        for _ in range(warm_up):
            way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name in list(ways)[:: -1 if number % 2 else 1]:
            synchronize(device)
            start = clock()
            ways[name]()
            synchronize(device)
            seconds[name].append(clock() - start)
    return seconds


def median_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median over rounds of one way's time by another's."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def synchronize(device: str) -> None:
    """Wait for a GPU's queued work; nothing on a CPU."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def peak_memory_mib(way: Way, device: str = "cpu") -> float | None:
    """Peak MiB in use while `way` runs: of the GPU's tensors, or of this process; None where that cannot be told.

    On a CPU it is what the process held at most, beyond what it held before: Linux resets its high-water mark on
    request.
    """
    if device.startswith("cuda"):
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        way()
        torch.cuda.synchronize(device)
        return float(torch.cuda.max_memory_allocated(device)) / 2**20
    try:
        _give_back_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")
        before = _resident_mib("VmRSS")
        way()
        return max(0.0, _resident_mib("VmHWM") - before)
    except OSError:
        return None


def _give_back_freed_memory() -> None:
    """What the allocator keeps of freed memory would be used again and hide what a way needs."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _resident_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise OSError(f"no {field} in /proc/self/status")


def machine(device: str) -> str:
    """The device in words, with the threads or the name that a figure depends on."""
    import platform

    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"CPU {platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads"
