"""What `vidprune bench` measures with: the order, the ratios, the checks before the clock, the counters. No times."""

from __future__ import annotations

import csv
import gc
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from tests.hosts import make_host, pixels_for
from tests.media import write_video
from vidprune.cli.app import app
from vidprune.cli.bench import parse_methods
from vidprune.compiling import CompiledForward, compile_model
from vidprune.errors import ConfigError, UnsupportedModelError, VideoDecodeError
from vidprune.inference import reader_for
from vidprune.profiling import decode_speed, model_speed
from vidprune.profiling.decode_speed import FLOOR, PLANES, measure_decode
from vidprune.profiling.measured_csv import write_measured
from vidprune.profiling.model_speed import check_outputs, measure_models
from vidprune.profiling.pipeline_speed import measure_pipeline
from vidprune.profiling.timing import median_ratio, peak_memory_mib, time_in_turn
from vidprune.pruners.papr import PaPr
from vidprune.pruners.tome import ToMe
from vidprune.pruning import prune
from vidprune.video import ViewPlan

SMALL_PLAN = ViewPlan(num_frames=8, frame_stride=1, num_segments=2, num_crops=3, short_side=64, crop_size=64)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_video(tmp_path_factory.mktemp("bench") / "clip.mp4", range(24))


def test_ways_run_in_turn_and_the_order_is_reversed_every_other_round() -> None:
    log: list[str] = []
    ticks = iter(range(1000))
    ways = {name: (lambda name=name: log.append(name)) for name in "abc"}
    seconds = time_in_turn(ways, rounds=3, warm_up=1, clock=lambda: float(next(ticks)))  # type: ignore[arg-type]
    assert "".join(log) == "abc" + "abc" + "cba" + "abc"
    assert seconds == {name: [1.0, 1.0, 1.0] for name in "abc"}


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    assert median_ratio([1.0, 10.0, 3.0], [1.0, 2.0, 1.0]) == 3.0  # not 3 / 1 or 10 / 2


def test_peak_memory_sees_what_is_freed_again() -> None:
    def way() -> None:
        np.ones(256 * 2**20, dtype=np.uint8)

    gc.collect()  # so that nothing else is freed meanwhile
    peak = peak_memory_mib(way)
    if peak is None:
        pytest.skip("this system cannot reset its high-water mark")
    assert 200 < peak < 400


def test_models_are_measured_with_their_parts() -> None:
    host = make_host("VideoMAE")
    models = {
        "dense": host,
        "papr": prune(host, PaPr(0.5, proposal="frame_difference")),
        "tome": prune(host, ToMe(4)),
    }
    dense, papr, tome = measure_models(models, batch=2, rounds=2)
    assert dense.speed_up == 1.0
    assert dense.proposal_ms == 0.0
    assert papr.proposal_ms > 0.0
    assert papr.share_of_bound is not None
    assert tome.share_of_bound is None  # acts inside blocks: no single count to compare with
    assert papr.gmacs_reduction is not None
    assert papr.gmacs_reduction > 1.0
    assert papr.views_per_s == pytest.approx(1e3 / papr.ms_per_view)


def test_a_compiled_model_is_held_to_a_compiled_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against a bound that runs uncompiled, compiling alone could make up for a costly proposal."""
    plain = torch.compile
    monkeypatch.setattr(torch, "compile", lambda forward, **options: plain(forward, **{**options, "backend": "eager"}))
    pruned = prune(make_host("VideoMAE"), PaPr(0.5, proposal="centre"))
    pixels = pixels_for(pruned.host)
    outputs = []
    for model in (pruned, compile_model(pruned)):
        bound = model_speed._parts(model, pixels)["bound"]
        assert isinstance(bound.func, CompiledForward) == (model is not pruned)  # type: ignore[attr-defined]
        with torch.no_grad():
            outputs.append([tuple(part.shape) for part in bound()])
    assert outputs == [[(2, 64, 32), (2, 7)]] * 2


def test_a_pass_for_a_whole_video_is_shared_out_over_its_views(clip: Path) -> None:
    host = make_host("VideoMAE")
    shared = prune(host, PaPr(0.5, proposal="codec_motion"))
    video = reader_for([shared], SMALL_PLAN)(clip)
    seconds = {"m": [1.0, 2.0], "m: proposal": [6.0, 6.0]}
    in_the_pass = {"all": [0.5, 1.0], "proposal": [3.0, 3.0]}
    assert model_speed._per_view("m", seconds, 2, None) == in_the_pass
    assert model_speed._per_view("m", seconds, 2, 6) == {"all": [1.5, 2.0], "proposal": [1.0, 1.0]}
    # As many views in a batch as share the pass: it runs apart all the same.
    assert model_speed._per_view("m", seconds, 2, 2) == {"all": [3.5, 4.0], "proposal": [3.0, 3.0]}
    rows = measure_models({"dense": host, "shared": shared}, batch=3, rounds=1, video=video, plan=SMALL_PLAN)
    assert rows[1].ms_per_view > rows[1].proposal_ms > 0.0
    (_, whole) = measure_models({"dense": host, "shared": shared}, batch=6, rounds=1, video=video, plan=SMALL_PLAN)
    assert whole.ms_per_view > whole.proposal_ms > 0.0
    with pytest.raises(ConfigError, match="at most the 6 views"):
        measure_models({"dense": host}, batch=7, video=video, plan=SMALL_PLAN)


class Broken(nn.Module):
    """A model whose fault shows in one of the three checks."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.calls = fault, 0

    def forward(self, pixels: Tensor) -> Tensor:
        self.calls += 1
        logits = pixels.flatten(1)[:, :3].clone()
        if self.fault == "not finite":
            logits[0, 0] = torch.nan
        if self.fault == "a second pass":
            logits = logits + self.calls
        if self.fault == "the first view alone":
            logits = logits + len(pixels)
        return logits


@pytest.mark.parametrize("fault", ["not finite", "a second pass", "the first view alone"])
def test_nothing_is_timed_before_its_outputs_are_right(fault: str) -> None:
    pixels = pixels_for(make_host("class token"))
    check_outputs("sound", Broken("none"), pixels)
    with pytest.raises(UnsupportedModelError, match=f"broken: .*{fault}"):
        check_outputs("broken", Broken(fault), pixels)


def test_decoding_is_measured_against_the_floor(clip: Path) -> None:
    rows = {row.way: row for row in measure_decode(clip, SMALL_PLAN, rounds=2)}
    assert {FLOOR, "pyav", "plain", "opencv"} <= rows.keys()
    assert rows[FLOOR].ratio == 1.0
    assert rows["pyav"].num_decoded is not None
    assert rows["pyav"].num_decoded <= rows["plain"].num_frames
    assert rows["pyav"].num_wanted <= rows["pyav"].num_frames
    planes = rows[PLANES]
    assert planes.num_decoded == rows["pyav"].num_decoded
    assert 0 < planes.mean_gap < 2
    assert planes.psnr_db > 38
    assert {row.mean_gap for name, row in rows.items() if name != PLANES} == {None}


def test_other_frames_than_a_plain_decodes_are_not_timed(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = decode_speed._plain
    monkeypatch.setattr(decode_speed, "_plain", lambda *args: plain(*args) ^ 1)
    with pytest.raises(VideoDecodeError, match="nothing was timed"):
        measure_decode(clip, SMALL_PLAN, rounds=1)


def test_an_evaluation_is_measured_with_its_stages(clip: Path) -> None:
    model = prune(make_host("VideoMAE"), PaPr(0.5, proposal="frame_difference"))
    row = measure_pipeline("papr", model, SMALL_PLAN, [clip] * 3, workers=0)
    assert (row.num_videos, row.views) == (3, 6)
    assert min(row.decode_ms, row.transfer_ms, row.proposal_ms, row.videos_per_s) > 0.0
    assert row.share_of_slowest == pytest.approx(
        row.videos_per_s / min(row.decode_videos_per_s, row.model_videos_per_s)
    )
    with pytest.raises(VideoDecodeError, match="at least two"):
        measure_pipeline("papr", model, SMALL_PLAN, [clip], workers=0)


def test_methods_as_text() -> None:
    assert parse_methods("papr keep_ratio=.55 + tome r=[4,2]") == [
        {"name": "papr", "keep_ratio": 0.55},
        {"name": "tome", "r": [4, 2]},
    ]
    with pytest.raises(ConfigError, match="field=value"):
        parse_methods("papr .55")


@dataclass(frozen=True)
class Figure:
    name: str
    ms: float
    note: str | None = None


def test_figures_name_what_made_them(tmp_path: Path) -> None:
    path = tmp_path / "figures.csv"
    write_measured(path, [Figure("a", 1.23456)], command=["vidprune", "bench", "a b"], machine="CPU x")
    command, machine, *rest = path.read_text().splitlines()
    assert command == "# vidprune bench 'a b'"
    assert machine.startswith("# CPU x; Python ")
    release, _, _ = torch.__version__.partition("+")  # a wheel's metadata need not name its build, such as +cu130
    assert f"torch {release}" in machine
    assert list(csv.DictReader(rest)) == [{"name": "a", "ms": "1.235", "note": ""}]
    with pytest.raises(ConfigError, match="cannot write"):
        write_measured(tmp_path / "no" / "x.csv", [Figure("a", 1.0)], command=[], machine="")


def test_bench_from_the_command_line(clip: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    out = tmp_path / "speed.csv"
    arguments = ["bench", "model", "--method", "random keep_ratio=.5", "--rounds", "1", "--json", "--csv", str(out)]
    result = runner.invoke(app, arguments, catch_exceptions=False)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["name"] for row in rows] == ["dense", "random keep_ratio=.5"]
    assert all("torch" in row["versions"] for row in rows)
    assert len(out.read_text().splitlines()) == 5
    table = runner.invoke(app, ["bench", "decode", str(clip), "--rounds", "1"], catch_exceptions=False)
    assert "decode only" in table.stdout
