"""The arithmetic of the extrapolation and of the growth table."""

from __future__ import annotations

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
