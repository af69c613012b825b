"""STAR and a-STAR against the paper's algebra, published counts and a map whose places are known."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo.testing
from hypothesis import given
from hypothesis import strategies as st

from tests.hosts import FEW_HOSTS, make_host, pixels_for, run_by_hand
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError
from vidprune.profiling.flops import flops
from vidprune.pruners.base import HostInfo
from vidprune.pruners.calibration import Calibration
from vidprune.pruners.star import STAR, AdaptiveSTAR, retention_rates
from vidprune.pruning import host_info, prune
from vidprune.types import TokenGrid

ensure_torchvision()
import timm  # noqa: E402  (the guard above must come first)

DEIT = HostInfo(TokenGrid(1, 14, 14), num_prefix=1, depth=12, width=384, num_heads=6, has_class_token=True)

# Kept patches after each of 12 blocks with linear rates, of 196, and DeiT-S GFLOPs.
LINEAR = {
    0.6: ([196, 189, 176, 157, 135, 111, 87, 65, 47, 32, 21, 13], 2.53),
    0.7: ([196, 191, 181, 167, 149, 129, 108, 88, 69, 53, 39, 28], 2.84),
    0.75: ([196, 192, 184, 172, 157, 140, 121, 102, 84, 67, 52, 39], 3.04),
    0.8: ([196, 193, 186, 176, 164, 150, 134, 117, 100, 84, 69, 56], 3.26),
    0.9: (
        [196, 195, 192, 187, 181, 173, 164, 154, 143, 132, 120, 108],
        3.85,
    ),  # 132 * 10 / 11 is 120, in floats more
}


def planted(host: HostInfo, seed: int = 0) -> Calibration:
    """Another order of the places in every block."""
    inter = np.random.default_rng(seed).permuted(
        np.tile(np.arange(1, host.grid.num_tokens + 1), (host.depth, 1)), axis=1
    )
    return Calibration(inter, np.linspace(0.1, 0.5, host.depth), host.grid, "planted")


# --- rates and counts


@pytest.mark.parametrize("keep_ratio", LINEAR)
def test_counts_and_gflops_of_linear_rates(keep_ratio: float) -> None:
    with torch.device("meta"):
        host = timm.create_model("deit_small_patch16_224")
    pruned = prune(host, STAR(keep_ratio), self_check=False)
    kept, gflops = LINEAR[keep_ratio]
    assert [count - 1 for count in pruned.mlp_token_counts()] == kept
    assert flops(pruned).total_gmacs == pytest.approx(gflops, abs=0.005)


def test_linear_rates_of_twelve_blocks() -> None:
    expected = [1, 0.973, 0.945, 0.918, 0.891, 0.864, 0.836, 0.809, 0.782, 0.755, 0.727, 0.7]
    assert retention_rates(range(12), 0.7) == pytest.approx(expected, abs=5e-4)


@given(
    st.lists(st.floats(-1, 1), min_size=2, max_size=12).filter(lambda acs: acs[-1] - acs[0] > 1e-3),
    st.floats(0.05, 0.95),
    st.floats(0.1, 10),
    st.floats(-1, 1),
)
def test_rates_fall_with_similarity_and_rise_with_the_ratio(
    similarity: list[float], keep_ratio: float, scale: float, shift: float
) -> None:
    rates = retention_rates(similarity, keep_ratio)
    assert rates[0] == 1
    assert rates[-1] == pytest.approx(keep_ratio)
    assert all(0 <= rate <= 1 for rate in rates)
    by_similarity = [rate for _, rate in sorted(zip(similarity, rates, strict=True), key=lambda pair: pair[0])]
    assert all(later <= earlier + 1e-12 for earlier, later in itertools.pairwise(by_similarity))
    assert all(more >= less for more, less in zip(retention_rates(similarity, keep_ratio + 0.05), rates, strict=True))
    moved = retention_rates([scale * value + shift for value in similarity], keep_ratio)
    assert moved == pytest.approx(rates, abs=1e-6)


def test_rates_are_the_papers_own_line() -> None:
    acs, rho = [0.2, 0.35, 0.3, 0.6], 0.7
    slope = (rho - 1) / (acs[-1] - acs[0])
    offset = (acs[-1] - rho * acs[0]) / (acs[-1] - acs[0])
    assert retention_rates(acs, rho) == pytest.approx([slope * value + offset for value in acs])


def test_rates_of_a_host_whose_similarity_does_not_rise() -> None:
    with pytest.raises(ConfigError, match=r"last block than in the first, got 0.2 and 0.5; use schedule='linear'"):
        retention_rates([0.5, 0.9, 0.2], 0.7)
    with pytest.raises(ConfigError, match="linear"):
        retention_rates([0.5, 0.5], 0.7)
    assert retention_rates([0.5, 0.5], 1.0) == (1.0, 1.0)
    assert retention_rates([0.5, 0.1, 3.0, 0.6], 0.7) == pytest.approx((1, 1, 0, 0.7))  # clipped on both sides


def test_schedules_come_from_the_calibration_a_list_or_neither() -> None:
    calibration = Calibration(np.ones((12, 196)), np.linspace(0, 1, 12) ** 2, DEIT.grid)
    rates = retention_rates(calibration.similarity.tolist(), 0.7)
    assert STAR(0.7, calibration=calibration).build(DEIT).score.rates == pytest.approx(rates)
    linear = STAR(0.7, calibration=calibration, schedule="linear").build(DEIT).score.rates
    assert linear == retention_rates(range(12), 0.7)
    assert STAR(0.7, schedule=(np.linspace(0, 1, 12) ** 2).tolist()).build(DEIT).score.rates == pytest.approx(rates)
    with pytest.raises(ConfigError, match="names 3 blocks, this host has 12"):
        STAR(0.7, schedule=[1, 2, 3]).build(DEIT)


# --- what is kept


@pytest.mark.parametrize("host_name", FEW_HOSTS)
def test_a_planted_map_stays_in_its_places(host_name: str) -> None:
    """With alpha = 0 the map alone decides. A map kept in token order would be out of step from the second block on."""
    host = make_host(host_name, depth=5)
    calibration = planted(host_info(host))
    pruned = prune(host, STAR(0.5, alpha=0.0, calibration=calibration))
    counts = [count - host.num_prefix_tokens for count in pruned.mlp_token_counts()]
    assert len(set(counts)) > 3
    alive = np.arange(host_info(host).grid.num_tokens)
    for inter, count in zip(calibration.inter, counts, strict=True):
        alive = np.sort(alive[np.argsort(-inter[alive], kind="stable")[:count]])
    with torch.no_grad():
        _, trace = pruned.forward_with_trace(pixels_for(host, batch=2))
    assert trace.kept_index.tolist() == [alive.tolist()] * 2


@pytest.mark.parametrize("method", [STAR, AdaptiveSTAR])
@pytest.mark.parametrize("with_map", [True, False])
def test_equals_a_loop_over_samples_and_blocks(method: type[STAR], with_map: bool) -> None:
    host = make_host("class token", depth=4)
    calibration = planted(host_info(host)) if with_map else None
    keep_ratio, alpha = 0.5, 0.6
    pruned = prune(host, method(keep_ratio, alpha=alpha, calibration=calibration))
    pixels = pixels_for(host, batch=3)
    expected = []
    for sample in pixels:
        alive = np.arange(16)

        def between(block: int, x: torch.Tensor, probs: torch.Tensor, keys: torch.Tensor) -> torch.Tensor:
            nonlocal alive
            rate = 1 - (1 - keep_ratio) * block / 3  # the planted similarity is evenly spaced, as is the surrogate
            inter = np.ones(16) if calibration is None else calibration.inter[block]
            fused = probs[:, 0, 1:].mean(0).double().numpy() ** alpha * inter[alive] ** (1 - alpha)
            order = np.argsort(-fused, kind="stable")
            if method is STAR:
                count = int(np.ceil(rate * len(alive) - 1e-9))
            else:
                share = np.cumsum(fused[order]) / fused.sum()
                count = len(alive) if rate == 1 else int(np.argmax(share >= rate - 1e-9)) + 1
            kept = np.sort(order[:count])
            alive = alive[kept]
            return x[[0, *(1 + kept)]]

        with torch.no_grad():
            expected.append((run_by_hand(host, sample[None], between), alive))
    with torch.no_grad():
        logits, trace = pruned.forward_with_trace(pixels)
    torch.testing.assert_close(logits, torch.stack([row for row, _ in expected]), atol=1e-5, rtol=1e-5)
    for row, (_, alive) in zip(trace.kept_index, expected, strict=True):
        assert row[row >= 0].tolist() == alive.tolist()


def test_scores_survive_a_cast_to_half_precision() -> None:
    host = make_host("class token")
    inter = np.tile(1 + np.arange(16) * 1e-4, (3, 1))  # equal in bfloat16
    pruned = prune(host, STAR(0.4, alpha=0.0, calibration=Calibration(inter, [0, 1, 2], TokenGrid(1, 4, 4))))
    with torch.no_grad():
        _, trace = pruned.bfloat16().forward_with_trace(pixels_for(host).bfloat16())
    count = trace.kept_index.shape[1]
    assert trace.kept_index[0].tolist() == list(range(16 - count, 16))
    assert "inter" not in " ".join(pruned.state_dict())


def test_permuting_the_places_permutes_what_is_kept() -> None:
    host = make_host("class token")
    calibration, order = planted(host_info(host)), np.random.default_rng(3).permutation(16)
    moved = Calibration(calibration.inter[:, order], calibration.similarity, calibration.grid)
    pixels = pixels_for(host)
    with torch.no_grad():
        _, trace = prune(host, STAR(0.5, alpha=0.4, calibration=calibration)).forward_with_trace(pixels)
        patches = pixels.unfold(2, 8, 8).unfold(3, 8, 8).flatten(2, 3)[:, :, order]  # [B, 3, N, 8, 8]
        shuffled = patches.view(-1, 3, 4, 4, 8, 8).transpose(3, 4).reshape(pixels.shape)
        host.pos_embed[:, 1:] = host.pos_embed[:, 1:][:, order]
        _, again = prune(host, STAR(0.5, alpha=0.4, calibration=moved)).forward_with_trace(shuffled)
    assert [sorted(order[row].tolist()) for row in again.kept_index] == trace.kept_index.tolist()


# --- a-STAR's count


@pytest.mark.parametrize("host_name", FEW_HOSTS)
def test_adaptive_star_is_the_same_alone_and_keeps_no_more_than_star(host_name: str) -> None:
    host = make_host(host_name)
    pruned = prune(host, AdaptiveSTAR(0.5, alpha=1.0))
    pixels = pixels_for(host, batch=4)
    with torch.no_grad():
        together, trace = pruned.forward_with_trace(pixels)
        alone = torch.cat([pruned(pixels[b : b + 1]) for b in range(4)])
        assert torch.equal(prune(host, AdaptiveSTAR(1.0))(pixels), host(pixels))
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)
    assert 1 <= trace.num_kept.min() <= trace.num_kept.max() <= prune(host, STAR(0.5)).num_final()


# --- errors and notes


BAD = {
    "keep_ratio": ({"keep_ratio": 0.0}, r"keep_ratio must be a number in \(0, 1\]"),
    "alpha": ({"alpha": 1.5}, r"alpha must be a number in \[0, 1\], got 1.5"),
    "alpha NaN": ({"alpha": float("nan")}, "alpha must be"),
    "score": ({"score": "cls"}, "score must be one of auto, class, received, got 'cls'"),
    "schedule": ({"schedule": "cosine"}, "schedule must be one of auto, acs, linear or a list"),
    "schedule NaN": ({"schedule": [0.1, float("nan")]}, "one finite number per block"),
    "acs": ({"schedule": "acs"}, "needs a calibration"),
    "calibration": ({"calibration": 3}, "calibration must be a file"),
}


@pytest.mark.parametrize(("fields", "message"), BAD.values(), ids=BAD.keys())
def test_bad_fields(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        STAR(**({"keep_ratio": 0.7} | fields))


def test_a_calibration_of_another_host_is_refused_naming_both(tmp_path: Path) -> None:
    Calibration(np.ones((2, 64)), [0.1, 0.2], TokenGrid(4, 4, 4), "videomae_tiny").save(tmp_path / "c.npz")
    with pytest.raises(
        ConfigError,
        match=r"made for videomae_tiny, 2 blocks and token grid \(4, 4, 4\); the host has 3 blocks and "
        r"token grid \(1, 4, 4\): .*vidprune calibrate",
    ):
        prune(make_host("class token"), STAR(0.7, calibration=str(tmp_path / "c.npz")))


def test_an_input_of_another_size_is_refused() -> None:
    host = make_host("dynamic size")
    pruned = prune(host, STAR(0.7, calibration=planted(host_info(host))))
    with pytest.raises(ConfigError, match=r"token grid \(1, 4, 4\), this input has \(1, 6, 6\)"):
        pruned(torch.zeros(1, 3, 48, 48))


def test_notes_say_what_stands_in_for_what() -> None:
    host = make_host("VideoMAE")
    notes = " ".join(prune(host, STAR(0.7)).notes())
    assert "no class token" in notes
    assert "no calibration" in notes
    assert "surrogate" in notes
    plain = make_host("class token")
    assert prune(plain, STAR(0.7, calibration=planted(host_info(plain)))).notes() == ()
    clipped = Calibration(np.ones((3, 16)), [0.5, 0.1, 0.9], TokenGrid(1, 4, 4))
    assert "blocks 1 gives rates clipped" in prune(plain, STAR(0.7, calibration=clipped)).notes()[0]
    with pytest.raises(ConfigError, match="needs a class token"):
        prune(host, STAR(0.7, score="class"))


def test_compiles_with_a_calibration_without_graph_breaks() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    host = make_host("class token", depth=3)
    pruned = prune(host, STAR(0.5, calibration=planted(host_info(host))))
    pixels = pixels_for(host)
    with torch.no_grad():
        compiled = torch.compile(pruned, fullgraph=True, backend=counter, dynamic=False)(pixels)
        torch.testing.assert_close(compiled, pruned(pixels), atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 1
