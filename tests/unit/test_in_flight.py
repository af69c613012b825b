"""Results are taken from a GPU one video late, so that it has work while the host makes rows; no row changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.evaluations import evaluate, tiny_model
from vidprune.evaluation import in_flight, runner
from vidprune.evaluation.in_flight import InFlight, launch, one_behind
from vidprune.inference import ViewOutput

NAMES = ["v0", "v1", "unreadable", "v3", "v4", "v5"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, in order, with the CPU in its place."""
    calls: list[str] = []
    numbers = itertools.count()

    class Event:
        def __init__(self, *, enable_timing: bool) -> None:
            assert enable_timing
            self.number = next(numbers)

        def record(self, stream: str) -> None:
            calls.append(f"event {self.number} on {stream}")

        def synchronize(self) -> None:
            calls.append(f"wait for event {self.number}")

        def elapsed_time(self, other: Event) -> float:
            return 1500.0 * (other.number - self.number)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: "current")
    return calls


def noted(output: ViewOutput, calls: list[str]) -> ViewOutput:
    calls.append("work")
    return output


def run_on_a_gpu(monkeypatch: pytest.MonkeyPatch, calls: list[str]) -> None:
    """Let evaluations launch as if their model were on a GPU."""

    def on_a_gpu(work, device):  # type: ignore[no-untyped-def]
        return in_flight.launch(lambda: noted(work(), calls), torch.device("cuda"))

    monkeypatch.setattr(runner, "launch", on_a_gpu)


def test_a_gpu_s_results_are_queued_behind_its_work_and_waited_for_when_asked(calls: list[str]) -> None:
    logits = torch.arange(6.0).view(3, 2)
    result = launch(lambda: noted(ViewOutput(logits, None), calls), torch.device("cuda"))
    assert calls == ["event 0 on current", "work", "event 1 on current"]
    assert result.wait() == 1.5  # CUDA tells milliseconds
    assert calls[3:] == ["wait for event 1"]
    assert torch.equal(result.output.logits, logits)


def test_a_cpu_s_results_are_there_at_once(calls: list[str]) -> None:
    result = launch(lambda: noted(ViewOutput(torch.zeros(1, 2), None), calls), torch.device("cpu"))
    assert calls == ["work"]
    assert result.events is None
    assert result.wait() == result.host_seconds > 0


def test_each_waits_for_the_start_of_the_next_unless_it_is_done() -> None:
    log: list[str] = []
    output = ViewOutput(torch.zeros(1, 2), None)
    kinds = {"a": False, "b": False, "done": True, "c": False, "failed": None, "d": False}

    def start() -> Iterator[tuple[str, InFlight | None]]:
        for name, done in kinds.items():
            log.append(f"start {name}")
            yield name, None if done is None else InFlight(output, 0.0, None if done else (0, 1))

    for name, _ in one_behind(start()):
        log.append(f"take {name}")
    order = "start a, start b, take a, start done, take b, take done, start c, start failed, take c, take failed"
    assert log == [*order.split(", "), "start d", "take d"]


def test_an_evaluation_that_is_one_behind_stores_the_same_rows(
    calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = evaluate(tmp_path / "cpu", NAMES, model=tiny_model()).table()

    run_on_a_gpu(monkeypatch, calls)
    rows = evaluate(tmp_path / "gpu", NAMES, model=tiny_model()).table()
    times = ["decode_s", "model_s"]
    assert rows.drop_columns(times).equals(expected.drop_columns(times))
    # Where no unreadable file comes between, the next video's work starts before the last one is waited for.
    steps = [call for call in calls if call == "work" or call.startswith("wait")]
    waits = [f"wait for event {number}" for number in (1, 3, 5, 7, 9)]
    assert steps == ["work", "work", waits[0], waits[1], "work", "work", waits[2], "work", waits[3], waits[4]]
    assert rows["model_s"].to_pylist() == [1.5, 1.5, None, 1.5, 1.5, 1.5]


@pytest.mark.parametrize("prefetch", [True, False])
def test_it_can_be_switched_off(
    prefetch: bool, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_on_a_gpu(monkeypatch, calls)
    evaluate(tmp_path, ["v0", "v1"], prefetch=prefetch)
    steps = [call.split()[0] for call in calls if not call.startswith("event")]
    assert steps == (["work", "work", "wait", "wait"] if prefetch else ["work", "wait", "work", "wait"])
