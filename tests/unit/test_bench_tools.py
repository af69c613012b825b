"""The arithmetic of the extrapolation, of the growth table and of the goals for a GPU."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from tests.hosts import make_host
from tests.tool_modules import tool
from vidprune.profiling.pipeline_speed import PipelineSpeed
from vidprune.pruners.papr import PaPr
from vidprune.pruning import prune


def test_minutes_follow_from_the_measured_rate() -> None:
    speed = PipelineSpeed(
        name="papr",
        workers=16,
        num_videos=64,
        views=15,
        decode_videos_per_s=80.0,
        model_videos_per_s=66.0,
        videos_per_s=60.0,
        share_of_slowest=60 / 66,
        shared_cores_videos_per_s=None,
        decode_ms=0.0,
        transfer_ms=0.0,
        proposal_ms=0.0,
        vit_ms=0.0,
        wait_share=0.0,
    )
    k400 = tool("extrapolate_k400")
    row = k400.extrapolate(speed, "videomae_large", "bfloat16")
    assert row.minutes == pytest.approx(19_796 / 60 / 60)
    assert row.minutes_if_overlap_were_perfect == pytest.approx(19_796 / 66 / 60)
    assert "19,796 videos / 60.00 per second / 60 = 5.5 minutes (extrapolated)" in k400.explain(row)


def test_growth_is_a_slope_on_logarithmic_axes() -> None:
    rows = tool("measure_scaling").scale_rows("tokens", "view", [(100, 1.0), (200, 2.0), (400, 8.0)])
    assert [row.ratio_to_first for row in rows] == [1.0, 2.0, 8.0]
    assert [row.exponent for row in rows] == [None, pytest.approx(1.0), pytest.approx(2.0)]


def test_a_profile_adds_up_to_the_whole_pass() -> None:
    host = make_host("VideoMAE")
    profile = tool("profile_model").profile
    for model in (host, prune(host, PaPr(0.5, proposal="centre"))):
        shares = {share.part: share for share in profile("model", model, rounds=1)}
        whole = shares.pop("all")
        assert whole.percent == 100.0
        assert sum(share.ms for share in shares.values()) == pytest.approx(whole.ms)
        assert ("proposal" in shares) == ("embedding of all patches" not in shares) == (model is not host)
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_goals_are_set_against_the_best_figure_that_was_written(tmp_path: Path) -> None:
    gpu = tool("measure_gpu")
    rows = "dense,,\npapr keep_ratio=.3,0.93,5.0\npapr keep_ratio=.3 shared_crops=true,0.98,7.0\nrandom,1.0,1.0\n"
    (tmp_path / "a.csv").write_text(f"# command\n# machine\nname,share,minutes\n{rows}")
    share = gpu.Goal("share", ("a.csv", "absent.csv"), "share", 0.97, True)
    minutes = gpu.Goal("minutes", ("a.csv",), "minutes", 4.0, False)
    unknown = gpu.Goal("unknown", ("absent.csv",), "share", 0.97, True)
    assert gpu.figure(share, tmp_path) == (0.98, "papr keep_ratio=.3 shared_crops=true", "a.csv")
    assert gpu.table([share, minutes, unknown], tmp_path).splitlines()[2:] == [
        "| share | at least 0.97 | 0.98 | papr keep_ratio=.3 shared_crops=true | a.csv | met |",
        "| minutes | at most 4 | 5 | papr keep_ratio=.3 | a.csv | short |",
        "| unknown | at least 0.97 | not measured | | absent.csv | open |",
    ]


def test_every_goal_for_a_gpu_has_a_step_that_writes_its_files() -> None:
    gpu = tool("measure_gpu")
    args = argparse.Namespace(
        clips=[Path("clip.mp4")], device="cuda", dtype="bfloat16", workers=16, num_videos=64, base="base", large="large"
    )
    written = {step.file for step in gpu.steps(args)}
    assert {file for goal in gpu.GOALS for file in goal.files} <= written
    assert all(step.command[-1] == step.file for step in gpu.steps(args) if step.file is not None)


def test_a_step_that_fails_takes_no_other_with_it_and_one_that_is_done_is_not_done_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gpu = tool("measure_gpu")
    write = "import sys; open(sys.argv[1], 'a').write('x')"
    gpu.run(gpu.Step(("python3", "-c", "raise SystemExit(3)")), tmp_path)
    for _ in range(2):
        gpu.run(gpu.Step(("python3", "-c", write, "a.csv"), "a.csv"), tmp_path)
    said = capfd.readouterr().out
    assert (tmp_path / "a.csv").read_text() == "x"
    assert "failed (3)" in said
    assert said.count("-- done") == 1
    assert said.count("there already: a.csv") == 1
