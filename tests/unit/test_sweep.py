"""A sweep: every point equals its evaluation, and what points share is done once; counted, not timed."""

from __future__ import annotations

import os
import pickle
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.media import write_video
from vidprune.config import EvaluateConfig, expand, parse_sweep
from vidprune.errors import ConfigError, VideoDecodeError
from vidprune.evaluation import sweep as engine
from vidprune.evaluation.report import read_report
from vidprune.evaluation.store import PredictionStore
from vidprune.proposals.controls import FrameDifferenceProposal, RandomProposal, UniformProposal
from vidprune.pruning import PrunedViT
from vidprune.runs import evaluate, sweep
from vidprune.types import VideoFrames
from vidprune.video import ViewPlan

TIMES = ["decode_s", "model_s"]
NAMES = [f"v{i}" for i in range(4)]
BASE: dict[str, Any] = {
    "device": "cpu",
    "workers": 0,
    "views": {"num_segments": 1, "num_crops": 2},
    "models": [{"name": "videomae_tiny", "num_classes": 7}],
}
SMALL = BASE | {"methods": [{"name": "papr", "proposal": "frame_difference"}], "keep_ratios": [0.5, 0.3]}


class CountingDecoder:
    """Noise that depends on the name alone, uint8 [32, 112, 128, 3]; remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, path: str) -> VideoFrames:
        name = Path(path).stem
        self.asked[name] += 1
        if name.startswith("unreadable"):
            raise VideoDecodeError(f"cannot decode {path!r}: nothing in it")
        frames = np.random.default_rng(sum(name.encode())).integers(0, 256, (32, 112, 128, 3), dtype=np.uint8)
        return VideoFrames(frames, np.arange(32), 32, 0, 0, np.zeros(32, bool), 30.0, (112, 128), "made up")


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Counter[str]]:
    """Sweep a config over made-up videos into tmp_path / out; returns how often each was decoded."""

    def call(data: dict[str, Any], out: str = "run", names: list[str] = NAMES, **options: Any) -> Counter[str]:
        manifest = tmp_path / f"{out}.txt"
        manifest.write_text("".join(f"{name}.mp4 {i}\n" for i, name in enumerate(names)))
        decoder = CountingDecoder()
        own = {"manifest": str(manifest), "out": str(tmp_path / out)}
        sweep(parse_sweep(data | own), decode=decoder, **options)
        return decoder.asked

    return call


def rows(folder: Path) -> dict[str, Any]:
    """Every point's rows without times, by name."""
    points = sorted((folder / "points").iterdir())
    return {point.name: PredictionStore.open(point).table().drop_columns([*TIMES, "path"]) for point in points}


def test_three_proposals_four_ratios_three_methods_share_all_they_can(
    run: Callable[..., Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marked: Counter[str] = Counter()
    for cls in (RandomProposal, FrameDifferenceProposal, UniformProposal):
        asked = cls.forward

        def counted(self: Any, clip: torch.Tensor, *, grid: Any = None, asked: Any = asked) -> torch.Tensor:
            marked[self.name] += len(clip) == 2  # all views of a video; a model's first pass, to warm up, takes one
            return asked(self, clip, grid=grid)

        monkeypatch.setattr(cls, "forward", counted)
    data = BASE | {
        "methods": [
            {"name": "papr"},
            [{"name": "papr"}, {"name": "tome", "r": 4}],
            [{"name": "papr"}, {"name": "evit", "keep_ratio": 0.7}],
        ],
        "proposals": [{"name": "random"}, {"name": "frame_difference"}, {"name": "uniform"}],
        "keep_ratios": [0.7, 0.5, 0.4, 0.3],
    }
    names = NAMES[:2]
    assert run(data, names=names) == dict.fromkeys(names, 1)
    assert marked == dict.fromkeys(("random", "frame_difference", "uniform"), 2)
    stored = rows(tmp_path / "run")
    assert len(stored) == 37
    assert all(table["video_id"].to_pylist() == names for table in stored.values())
    assert len({str(table["view_logits"].to_pylist()) for table in stored.values()}) == 37, "every point is another"
    text = (tmp_path / "run" / "table.md").read_text()
    assert all(name in text for name in stored)
    assert (tmp_path / "run" / "table.csv").exists()
    assert (tmp_path / "run" / "report.html").exists()


def test_every_point_is_the_run_that_evaluate_makes(tmp_path: Path) -> None:
    for i in range(2):
        write_video(tmp_path / f"{i}.mp4", range(20 * i, 20 * i + 40), size=(112, 150))
    (tmp_path / "list.txt").write_text("0.mp4 1\n1.mp4 2\n")
    shared = {"manifest": str(tmp_path / "list.txt"), "out": str(tmp_path / "sweep")}
    methods = [{"name": "papr", "proposal": "x3d_tiny", "each": {"shared_crops": [False, True]}}]
    methods += [{"name": "papr", "proposal": "codec_motion"}, {"name": "random", "seed": 3}]
    methods += [[{"name": "uniform"}, {"name": "tome", "r": 8}]]  # type: ignore[list-item]
    config = parse_sweep(BASE | shared | {"methods": methods, "keep_ratios": [0.6]})
    sweep(config)
    for point in expand(config):
        own = EvaluateConfig(shared["manifest"], str(tmp_path / point.name), run=point.run, workers=0)
        evaluate(own)
        alone, swept = (
            PredictionStore.open(p) for p in (tmp_path / point.name, tmp_path / "sweep/points" / point.name)
        )
        assert swept.header["digest"] == alone.header["digest"]
        assert swept.header["cost"] == alone.header["cost"]
        assert swept.table().drop_columns(TIMES).equals(alone.table().drop_columns(TIMES)), point.name
        report = read_report(swept.folder)
        assert report.num_decoded == 2
    chain = PredictionStore.open(tmp_path / "sweep/points/videomae_tiny-uniform-z0.6+tome-r8").header["identity"]
    assert chain["method"]["name"] == "uniform+tome"
    assert [step["name"] for step in chain["method"]["steps"]] == ["uniform", "tome"]


def test_a_finished_sweep_decodes_nothing_and_a_longer_one_runs_its_new_points_alone(
    run: Callable[..., Counter[str]], tmp_path: Path
) -> None:
    assert sum(run(SMALL).values()) == 4
    before = {name: PredictionStore.open(tmp_path / "run/points" / name).parts() for name in rows(tmp_path / "run")}
    assert run(SMALL) == {}
    assert run(SMALL | {"keep_ratios": [0.5, 0.4, 0.3]}) == dict.fromkeys(NAMES, 1)
    after = {name: PredictionStore.open(tmp_path / "run/points" / name).parts() for name in before}
    assert after == before
    run(SMALL | {"keep_ratios": [0.5, 0.4, 0.3]}, out="whole")
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_a_killed_sweep_goes_on_with_the_videos_that_a_point_lacks(
    run: Callable[..., Counter[str]], tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    run(SMALL, out="whole")
    seen: list[object] = []

    def die_at_the_third(row: object) -> None:
        seen.append(row)
        if len(seen) == 3:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if child == 0:
        run(SMALL | {"flush_rows": 1}, on_video=die_at_the_third)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert run(SMALL) == {"v3": 1}
    assert rows(tmp_path / "run") == rows(tmp_path / "whole")


def test_an_interrupted_sweep_stores_what_it_has_at_every_point(run: Callable[..., Counter[str]]) -> None:
    def interrupt(row: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(SMALL, on_video=interrupt)
    assert run(SMALL) == dict.fromkeys(NAMES[1:], 1)


def test_any_number_of_processes_gives_the_same_stores(
    run: Callable[..., Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(SMALL, out="one")
    for rank, mine in ((0, ["v0", "v2"]), (1, ["v1", "v3"])):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "2")
        assert run(SMALL, out="two") == dict.fromkeys(mine, 1)
    assert rows(tmp_path / "two") == rows(tmp_path / "one")


def test_failures_are_rows_at_every_point_and_can_be_tried_again(
    run: Callable[..., Counter[str]], tmp_path: Path
) -> None:
    names = ["v0", "unreadable", "v1"]
    assert run(SMALL, names=names) == dict.fromkeys(names, 1)
    stored = rows(tmp_path / "run")
    assert len(stored) == 3
    for table in stored.values():
        assert table["error"].is_valid().to_pylist() == [False, True, False]
        assert "nothing in it" in table["error"][1].as_py()
    assert run(SMALL | {"retry_failed": True}, names=names) == {"unreadable": 1}


def test_shared_seconds_count_at_every_point_that_used_them(
    run: Callable[..., Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[object] = []

    def timed(work: Callable[[], Any], device: object) -> tuple[Any, float]:
        calls.append(work)
        return work(), 1.0

    monkeypatch.setattr(engine, "_timed", timed)
    data = SMALL | {"keep_ratios": [0.5, 0.3, 0.2, 1.0]}
    run(data, names=["v0"])
    folders = sorted((tmp_path / "run" / "points").iterdir())
    seconds = {folder.name: PredictionStore.open(folder).table()["model_s"].to_pylist() for folder in folders}
    assert set(map(tuple, seconds.values())) == {(3.0,)}, "views, map and model, each a second"
    assert len(calls) == 1 + 2 + 5, "views once; no map, and the map once; five models"


def test_batches_out_of_memory_are_halved(
    run: Callable[..., Counter[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(SMALL, out="large")
    forward = PrunedViT.forward_with_trace

    def small(self: PrunedViT, pixels: torch.Tensor, proposal_map: torch.Tensor | None = None) -> Any:
        if len(pixels) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(self, pixels, proposal_map)

    monkeypatch.setattr(PrunedViT, "forward_with_trace", small)
    run(SMALL, out="small")
    for got, want in zip(rows(tmp_path / "small").values(), rows(tmp_path / "large").values(), strict=True):
        np.testing.assert_allclose(got["view_logits"].to_pylist(), want["view_logits"].to_pylist(), atol=1e-5)


def test_one_decoding_serves_models_of_other_lengths_and_refuses_other_sizes() -> None:
    plans = [ViewPlan(num_frames=8, num_segments=2), ViewPlan(num_frames=16, num_segments=3)]
    joint = pickle.loads(pickle.dumps(engine.joint_plan(plans)))
    wanted = set().union(*(plan.wanted_frames(100) for plan in plans))
    assert joint.wanted_frames(100).tolist() == sorted(wanted)
    assert engine.joint_plan([plans[0], plans[0]]) == plans[0]
    with pytest.raises(ConfigError, match="frames of 224 pixels and another of 112"):
        engine.joint_plan([plans[0], ViewPlan(short_side=112, crop_size=112)])
