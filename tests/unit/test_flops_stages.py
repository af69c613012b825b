"""The analytic cost of ConvNeXt and Swin against published figures and counters that really run the model."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.hosts import make_host, pixels_for
from tests.stage_hosts import STAGE_HOSTS, make_stage_host
from vidprune.errors import ConfigError
from vidprune.models import create_model
from vidprune.models.frame_batch import FrameBatch
from vidprune.profiling.flops import counts_plan, flops
from vidprune.pruners.controls import Random
from vidprune.pruning import prune

each_host = pytest.mark.parametrize("name", STAGE_HOSTS)


def meta_model(name: str) -> nn.Module:
    with torch.device("meta"):
        return create_model(f"timm/{name}")


PUBLISHED = {  # PaPr, tables 5 and 6
    "convnext_base": 15.38,
    "convnext_large": 34.40,
    "swin_base_patch4_window7_224": 15.47,
    "swin_large_patch4_window7_224": 34.53,
}
POINTWISE = {"convnext_base": 0.962, "swin_base_patch4_window7_224": 0.633}  # PaPr, section 3.4, of an unnamed size


@pytest.mark.parametrize("name", PUBLISHED)
def test_dense_hosts_cost_what_papr_published(name: str) -> None:
    report = flops(meta_model(name), convention="fvcore")
    assert report.total_gmacs == report.dense_gmacs == pytest.approx(PUBLISHED[name], abs=0.005)
    assert report.pointwise_share == pytest.approx(POINTWISE.get(name, report.pointwise_share), abs=0.007)


def images_for(host: nn.Module) -> torch.Tensor:
    return torch.randn(1, 3, 224, 224) if hasattr(host, "stem") else torch.randn(1, 3, 64, 64)


@each_host
def test_dense_counts_equal_fvcore_on_a_model_that_runs(name: str) -> None:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    host = make_stage_host(name)
    counter = FlopCountAnalysis(host, images_for(host)).unsupported_ops_warnings(False)
    counter.uncalled_modules_warnings(False)
    assert flops(host, convention="fvcore").dense_gmacs == pytest.approx(counter.total() / 1e9, rel=1e-9)


@each_host
def test_pruned_counts_equal_torchs_counter_on_what_runs(name: str) -> None:
    pruned = prune(make_stage_host(name), Random(0.4, stages=[1, 2]))
    for model in (pruned.host, pruned):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(images_for(pruned.host))
        assert flops(model).total_gmacs == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-9)


def test_cost_falls_with_the_keep_ratio_and_with_the_stages_that_drop() -> None:
    host = meta_model("convnext_tiny")
    ratios = [flops(prune(host, Random(z))).total_gmacs for z in (1.0, 0.9, 0.5, 0.1)]
    assert ratios == sorted(set(ratios), reverse=True)
    stages = [flops(prune(host, Random(0.5, stages=s))).total_gmacs for s in ([3], [2, 3], [1, 2, 3], None)]
    assert stages == sorted(set(stages), reverse=True)


def test_counts_from_elsewhere_take_the_place_of_a_methods_own() -> None:
    pruned = prune(make_host("class token"), Random(0.5))
    plan = pruned.plan(16)
    assert flops(pruned.host, plans=[plan]).vit_gmacs == flops(pruned).vit_gmacs
    some, more = counts_plan((9, 9, 9)), counts_plan((17, 13, 9), (13, 9, 9))
    costs = [flops(pruned.host, plans=[p]).vit_gmacs for p in (some, more)]
    both = flops(pruned.host, plans=[some, more])
    assert both.vit_gmacs == pytest.approx(sum(costs) / 2)
    assert both.token_counts == (13, 11, 9)
    with pytest.raises(ConfigError, match="3 blocks, plans have"):
        flops(pruned.host, plans=[plan[:2]])
    with pytest.raises(ConfigError, match="one number from 1 per block"):
        counts_plan((5, 4), (5, 0))
    with pytest.raises(ConfigError, match="takes none"):
        flops(meta_model("convnext_tiny"), plans=[plan])


@pytest.mark.parametrize("pruner", [None, Random(0.5)])
def test_a_clip_of_frames_costs_what_its_frames_cost(pruner: Random | None) -> None:
    host = make_host("class token")
    model = host if pruner is None else prune(host, pruner)
    clip, frame = flops(FrameBatch(model, 4)), flops(model)
    assert clip.total_gmacs == pytest.approx(4 * frame.total_gmacs)
    assert clip.reduction == pytest.approx(frame.reduction)
    assert clip.num_tokens == 4 * 17
    pixels = pixels_for(host, 4).transpose(0, 1).unsqueeze(0)  # [1, 3, 4, 32, 32]
    # The fused CPU attention kernel is missing from the counter's table, so the plain one is forced.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        FrameBatch(model, 4)(pixels)
    ran = clip.total_gmacs - clip.skipped_embedding_gmacs
    assert ran == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-6)
