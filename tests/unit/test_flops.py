"""Analytic cost against the published figures, the closed form and counters that really run the model."""

from __future__ import annotations

import pytest
import torch

from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.models import create_model
from vidprune.models.videomae import VideoMAE, VideoMAESpec
from vidprune.profiling.flops import flops
from vidprune.pruners.controls import Random
from vidprune.pruners.papr import PaPr
from vidprune.pruning import prune

ensure_torchvision()
import timm  # noqa: E402

# PaPr table 8 and its recount: host, keep_ratio -> GMACs of the ViT alone.
VIDEO_GMACS = {
    ("videomae_base", 1.0): 180.3,
    ("videomae_base", 0.45): 70.9,
    ("videomae_base", 0.35): 53.9,
    ("videomae_large", 1.0): 596.8,
    ("videomae_large", 0.5): 269.4,
    ("videomae_large", 0.3): 155.3,
    ("videomae_small", 1.0): 56.9,
    ("videomae_huge", 0.3): 316.9,
}


def meta_model(name: str) -> VideoMAE:
    with torch.device("meta"):
        return create_model(name)


@pytest.mark.parametrize(("name", "keep_ratio"), VIDEO_GMACS)
def test_videomae_costs_what_is_published(name: str, keep_ratio: float) -> None:
    report = flops(prune(meta_model(name), Random(keep_ratio)))
    assert report.vit_gmacs == pytest.approx(VIDEO_GMACS[name, keep_ratio], rel=0.002)


@pytest.mark.parametrize(("treatment", "gmacs"), [("release", 1.21), ("native", 4.73)])
def test_papr_adds_its_proposal_apart(treatment: str, gmacs: float) -> None:
    report = flops(prune(meta_model("videomae_base"), PaPr(0.45, proposal="x3d_s", input_treatment=treatment)))
    assert report.proposal_gmacs == pytest.approx(gmacs, rel=0.01)
    assert report.total_gmacs == pytest.approx(70.9 + gmacs, rel=0.01)
    assert report.reduction == pytest.approx(180.3 / (70.9 + gmacs), rel=0.01)


def test_nothing_is_spent_on_a_proposal_that_does_not_run() -> None:
    report = flops(prune(meta_model("videomae_base"), PaPr(1.0)))
    assert report.proposal_gmacs == 0.0
    assert report.reduction == 1.0


@pytest.mark.parametrize(
    ("name", "matmul", "fvcore"),
    [
        ("deit_tiny_patch16_224", 1.2537, 1.2584),
        ("deit_small_patch16_224", 4.5989, 4.6083),
        ("vit_base_patch16_224", 17.5638, 17.5827),
        ("vit_large_patch16_224", 61.5547, 61.6041),
    ],
)
def test_image_vits_cost_what_is_published_in_both_conventions(name: str, matmul: float, fvcore: float) -> None:
    with torch.device("meta"):
        host = timm.create_model(name)
    assert flops(host).dense_gmacs == pytest.approx(matmul, abs=6e-5)
    assert flops(host, convention="fvcore").dense_gmacs == pytest.approx(fvcore, abs=6e-5)


def test_counts_equal_torchs_counter_on_a_model_that_runs() -> None:
    spec = VideoMAESpec(width=64, depth=2, num_heads=4, num_frames=4, image_size=64)
    # Every patch embedded, as the papers count; by default the dropped ones are not.
    pruned = prune(VideoMAE(spec, num_classes=5), Random(0.5), embed_kept=False).eval()
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    for model in (pruned.host, pruned):
        # The fused CPU attention kernel is missing from the counter's table, so the plain one is forced.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(torch.randn(1, 3, 4, 64, 64))
        assert flops(model).total_gmacs == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-6)


def test_cost_falls_with_the_keep_ratio() -> None:
    totals = [flops(prune(meta_model("videomae_small"), Random(z))).total_gmacs for z in (1.0, 0.9, 0.5, 0.1)]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == 4


def test_refusals() -> None:
    with pytest.raises(UnsupportedModelError, match="got Linear"):
        flops(torch.nn.Linear(2, 2))
    with pytest.raises(ConfigError, match="convention"):
        flops(meta_model("videomae_small"), convention="mults")  # type: ignore[arg-type]
