"""The sweep of all pruners at equal cost: every strength meets its target, every figure equals a plain recount."""

from __future__ import annotations

import csv
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.hosts import make_host, pixels_for
from tests.tool_modules import tool
from vidprune.profiling.flops import flops
from vidprune.proposals import create_proposal
from vidprune.pruners import METHODS
from vidprune.pruning import host_info


@pytest.fixture(scope="module")
def methods() -> ModuleType:
    return tool("sweep_methods")


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    return tool("sweep_measure")


def _task(host_name: str, num: int = 6, depth: int = 3) -> object:
    """Random weights and random inputs; `random` stands in for the proposal."""
    tasks = tool("sweep_tasks")
    host = make_host(host_name, depth=depth)

    def test_set(seed: int) -> object:
        inputs = pixels_for(host, batch=num, seed=seed)
        return tasks.TestSet(inputs, torch.arange(num) % 7)

    return tasks.Task(
        name="frames" if inputs_are_images(host_name) else "tubelets",
        unit="image",
        host=host,
        proposal=create_proposal("centre"),
        test_set=test_set,
        calibration=lambda: pixels_for(host, batch=4, seed=99),
        data="random inputs",
    )


def inputs_are_images(host_name: str) -> bool:
    return host_name != "VideoMAE"


def test_solve_finds_the_nearest_of_all_settings(methods: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        costs = np.sort(rng.random(rng.integers(1, 40)))[::-1]
        for target in (*rng.random(5), 0.0, 2.0):
            found = methods.solve(lambda s, costs=costs: float(costs[s]), target, len(costs) - 1)
            assert abs(costs[found] - target) == np.abs(costs - target).min()


def test_spread_is_even_and_complete(methods: ModuleType) -> None:
    for total in range(20):
        counts = methods.spread(total, 6)
        assert sum(counts) == total
        assert max(counts) - min(counts) <= 1


def test_strength_costs_less_on_every_dial(methods: ModuleType, measure: ModuleType) -> None:
    task = _task("VideoMAE")
    dials = dict(methods.all_dials(methods.Setting(host_info(task.host), task.proposal)))
    assert set(METHODS.names()) <= set(dials)
    assert all(dials[name] for name in ("papr", "tome", "evit", "gtp", "ats", "rlt", "sta", "diffrate", "papr, mass"))
    for name, found in dials.items():
        for dial in found:
            nothing, weak, strong = (
                measure.measured_cost(measure.build(task, dial.make(s)), task.calibration())[0]
                for s in (0, dial.num_steps // 4, dial.num_steps)
            )
            assert strong < nothing, name
            assert strong <= weak, name


@pytest.mark.parametrize("host_name", ["class token", "VideoMAE"])
def test_fixed_methods_meet_their_target_to_within_a_token(measure: ModuleType, host_name: str) -> None:
    task = _task(host_name, depth=4)
    variants, _ = measure.find_variants(task, [0.7])
    dense = flops(task.host)
    one_token = dense.total_gmacs / task.host.pos_embed.shape[1]
    found = {variant.method: variant for variant in variants}
    for name in ("random", "uniform", "centre", "norm", "tome", "tofu"):
        assert abs(found[name].gmacs - 0.7 * dense.total_gmacs) <= one_token, name
        assert found[name].gmacs == flops(found[name].model).total_gmacs
    assert "frame_difference" in found or inputs_are_images(host_name)


def test_methods_that_cannot_run_or_reach_are_named(measure: ModuleType) -> None:
    variants, missing = measure.find_variants(_task("class token"), [0.7, 0.01])
    assert any(line.startswith("frame_difference: ") and "2 frames" in line for line in missing)
    assert any(line.startswith("random at 1%: the nearest it gets is") for line in missing)
    assert all(abs(v.gmacs / variants[0].gmacs - v.target) <= measure.MISS for v in variants)


def test_a_dial_turned_too_far_gives_way_to_the_next(measure: ModuleType, methods: ModuleType) -> None:
    task = _task("class token", depth=4)
    dials = dict(methods.all_dials(_setting_of(task)))["evit"]
    for target in (0.8, 0.45):
        alone = [measure._at_target(task, "evit", [dial], target, task.calibration()) for dial in dials]
        chosen = measure._at_target(task, "evit", dials, target, task.calibration())
        strengths = [1000 * (1 - float(v.setting.removeprefix("keep_ratio=").split(",")[0])) for v in alone]
        dense = flops(task.host).total_gmacs
        fine = [abs(v.gmacs / dense - target) <= 0.05 and s <= 750 for v, s in zip(alone, strengths, strict=True)]
        assert fine.count(True) >= 1
        assert chosen.setting == alone[fine.index(True)].setting
    assert not fine[0], "the second target is meant to be beyond the first dial"


def test_setting_names_what_was_set_alone(methods: ModuleType) -> None:
    host = host_info(make_host("VideoMAE"))
    setting = methods.Setting(host, create_proposal("centre"))
    dials = dict(methods.all_dials(setting))
    assert methods.describe(dials["papr"][0].make(250)) == "keep_ratio=0.75"
    assert methods.describe(dials["tome"][0].make(4)) == "r=[1, 1, 2]"
    assert methods.describe(dials["evit"][1].make(300)) == "keep_ratio=0.7, blocks=[0, 1, 2]"


def test_a_whole_sweep_on_random_weights(measure: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = tool("sweep_pruners")
    methods = tool("sweep_methods")
    few = [pair for pair in methods.all_dials(_setting_of(_task("class token"))) if pair[0] in ("papr", "random")]
    monkeypatch.setattr(measure, "all_dials", lambda setting: few)
    task = _task("class token")
    variants, missing = sweep.sweep(task, [0.7, 0.5], [1, 2], rounds=1)
    sweep.write_results(task, variants, missing, tmp_path, "python tools/sweep_pruners.py frames")
    with (tmp_path / "pareto_frames.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["method"] for row in rows] == ["dense", "papr", "papr", "random", "random"]
    for row, variant in zip(rows, variants, strict=True):
        hits = torch.cat([_hits(variant.model, task.test_set(seed)) for seed in (1, 2)])
        assert float(row["top1"]) == pytest.approx(100 * hits.float().mean().item(), abs=0.005)
        assert float(row["top1_low"]) <= float(row["top1"]) <= float(row["top1_high"])
        assert float(row["share_of_dense"]) == pytest.approx(float(row["target"]), abs=5)
    assert float(rows[1]["to_random"]) == pytest.approx(float(rows[1]["top1"]) - float(rows[3]["top1"]), abs=0.011)
    assert "tools/sweep_pruners.py frames" in (tmp_path / "pareto_frames.md").read_text()
    ElementTree.parse(tmp_path / "pareto_frames.svg")


def _setting_of(task: object) -> object:
    return tool("sweep_methods").Setting(host_info(task.host), task.proposal)


@torch.inference_mode()
def _hits(model: torch.nn.Module, data: object) -> Tensor:
    return torch.stack([model(x[None]).argmax() == y for x, y in zip(data.inputs, data.labels, strict=True)])


def test_verdicts_sort_methods_by_their_interval() -> None:
    sweep = tool("sweep_pruners")

    def row(method: str, gap: float, low: float, high: float) -> dict[str, str]:
        values = {"to_random": gap, "to_random_low": low, "to_random_high": high}
        return {"method": method, "target": "50"} | {key: str(value) for key, value in values.items()}

    rows = [row("a", 2, 1, 3), row("b", 1, -1, 3), row("c", -4, -6, -2), row("d", 5, 4, 6), row("random", 0, 0, 0)]
    (line,) = sweep.verdicts(rows)
    assert line == "- 50 % of dense: above random: d +5.0, a +2.0; not told apart from it: b +1.0; below it: c -4.0."


def test_labels_of_the_plot_keep_their_distance() -> None:
    plot = tool("pareto_plot")
    heights = plot._apart([10.0, 11.0, 12.0, 505.0, 509.0, 509.5], 13)
    assert min(np.diff(heights)) >= 13
    assert heights[0] == 10.0
    assert heights[-1] <= plot.HEIGHT - plot.BOTTOM
