"""What every pruner must hold. A new pruner is one row of `ROWS`."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.hosts import ALL_HOSTS, FEW_HOSTS, make_host, pixels_for
from vidprune.profiling.flops import FlopsReport, flops
from vidprune.pruners import METHODS
from vidprune.pruners.ats import ATS
from vidprune.pruners.base import Pruner
from vidprune.pruners.controls import Centre, FrameDifference, Norm, Random, Uniform
from vidprune.pruners.diffrate import DiffRate
from vidprune.pruners.etps import ETPS
from vidprune.pruners.evit import EViT
from vidprune.pruners.gtp import GTP
from vidprune.pruners.papr import PaPr
from vidprune.pruners.rlt import RLT
from vidprune.pruners.sta import STA
from vidprune.pruners.star import STAR, AdaptiveSTAR
from vidprune.pruners.tofu import ToFu
from vidprune.pruners.tome import ToMe
from vidprune.pruning import PrunedViT, prune


@dataclass(frozen=True)
class Row:
    """One pruner at several strengths.

    Attributes:
        make: the config for a strength.
        identity: the strength at which nothing happens; None where every strength changes something.
        strengths: from weak to strong.
        loses_tokens: whether some original tokens are in no final token.
        images: whether it runs on images too.
        saves_on_small_hosts: whether less is spent than on the dense host even where width and depth are tiny; a
            method that computes the attention matrix a second time needs a real model for that.
        ragged: whether counts depend on the input, so that what is known before is the most there can be.
    """

    make: Callable[[float], Pruner | list[Pruner]]
    identity: float | None
    strengths: tuple[float, ...]
    loses_tokens: bool = True
    images: bool = True
    saves_on_small_hosts: bool = True
    ragged: bool = False


ROWS = {
    "random": Row(Random, 1.0, (0.9, 0.6, 0.3)),
    "uniform": Row(Uniform, 1.0, (0.9, 0.6, 0.3)),
    "centre": Row(Centre, 1.0, (0.9, 0.6, 0.3)),
    "frame_difference": Row(FrameDifference, 1.0, (0.9, 0.6, 0.3), images=False),
    "norm": Row(Norm, 1.0, (0.9, 0.6, 0.3)),
    "tome": Row(lambda r: ToMe(int(r)), 0, (1, 2, 4), loses_tokens=False),
    "tome, later half": Row(lambda r: ToMe(int(r), start_block=1), 0, (1, 2, 4), loses_tokens=False),
    "tome, schedule": Row(lambda r: ToMe((int(r), -1.0)), 0, (1, 2, 4), loses_tokens=False),
    "evit": Row(EViT, 1.0, (0.9, 0.6, 0.3), loses_tokens=False),
    "evit, no fusion": Row(lambda z: EViT(z, fuse=False), 1.0, (0.9, 0.6, 0.3)),
    "evit, received": Row(lambda z: EViT(z, score="received", blocks=(1,)), 1.0, (0.9, 0.6, 0.3), loses_tokens=False),
    "etps": Row(ETPS, 1.0, (0.9, 0.6, 0.3), loses_tokens=False),
    "random, then etps": Row(lambda z: [Random(z), ETPS(z)], 1.0, (0.9, 0.6, 0.3)),
    "tofu": Row(lambda r: ToFu(int(r)), 0, (1, 2, 4)),
    "tofu, merging alone": Row(lambda r: ToFu(int(r), merge_from=0), 0, (1, 2, 4), loses_tokens=False),
    "gtp": Row(lambda p: GTP(int(p)), 0, (1, 2, 4), saves_on_small_hosts=False),
    "gtp, sizes": Row(
        lambda p: GTP(int(p), proportional_attention=True, graph="spatial"), 0, (1, 2, 4), saves_on_small_hosts=False
    ),
    "random, then gtp": Row(lambda p: [Random(1 - p / 8), GTP(int(p))], 0, (1, 2, 4), saves_on_small_hosts=False),
    "random, then tome": Row(lambda r: [Random(1 - r / 5), ToMe(int(r), start_block=1)], 0, (1, 2, 4)),
    "star": Row(STAR, 1.0, (0.9, 0.6, 0.3), saves_on_small_hosts=False),
    "random, then star": Row(lambda z: [Random(z), STAR(z)], 1.0, (0.9, 0.6, 0.3), saves_on_small_hosts=False),
    "sta": Row(lambda r: STA(int(r)), 0, (1, 2, 4), images=False),
    "diffrate": Row(
        lambda n: DiffRate(prune_kept=(99, 14 - n, 12 - n), merge_kept=(99, 13 - n, 10 - n)), -90, (0, 1, 2)
    ),
    "diffrate, merging alone": Row(
        lambda n: DiffRate(merge_kept=(99, 14 - n, 12 - n)), -90, (0, 1, 2), loses_tokens=False
    ),
    "ats": Row(lambda z: ATS(z, min_samples=2), None, (0.9, 0.6, 0.3), ragged=True, saves_on_small_hosts=False),
    "random, then ats": Row(lambda z: [Random(z), ATS(z)], None, (0.9, 0.6, 0.4), ragged=True),
    "rlt": Row(RLT, 0.0, (1.09, 1.13, 1.17), ragged=True, images=False),
    "rlt, then ats": Row(
        lambda tau: [RLT(tau), ATS(1.0, blocks=[1])], None, (1.09, 1.13, 1.17), ragged=True, images=False
    ),
    "papr, mass": Row(
        lambda p: PaPr(mass=p, proposal="frame_difference"), 1.0, (0.9, 0.6, 0.3), ragged=True, images=False
    ),
    "adaptive_star": Row(AdaptiveSTAR, 1.0, (0.9, 0.6, 0.3), ragged=True, saves_on_small_hosts=False),
}

# Compiling takes seconds: rows that run the same code as another one are not compiled again.
COMPILED_ELSEWHERE = {
    "uniform",
    "centre",
    "tome, later half",
    "tome, schedule",
    "random, then etps",
    "random, then gtp",
    "random, then star",
    "diffrate",  # a list names as many blocks as the host has: compiled in its own file
    "diffrate, merging alone",
}

TESTED_ELSEWHERE = {"papr"}  # with its networks, in test_pruning.py
SHARED_CARDS = {"adaptive_star": "star"}

each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


def pruned_host(row: Row, host_name: str, strength: float | None = None) -> PrunedViT:
    if host_name != "VideoMAE" and not row.images:
        pytest.skip("runs on video alone")
    return prune(make_host(host_name), row.make(row.strengths[1] if strength is None else strength))


@each_row
@pytest.mark.parametrize("host_name", ALL_HOSTS)
def test_keep_everything_equals_the_host_bit_for_bit(row: Row, host_name: str) -> None:
    if row.identity is None:
        pytest.skip("keeps less than everything at any strength")
    pruned = pruned_host(row, host_name, row.identity)
    host = pruned.host
    pixels = pixels_for(host)
    with torch.no_grad():
        logits, trace = pruned.forward_with_trace(pixels)
        assert torch.equal(logits, host(pixels))
        assert trace.kept_index is None or (pruned.ragged and (trace.num_kept == trace.grid.num_tokens).all())
        assert (prune(host, row.make(row.strengths[-1]))(pixels) - host(pixels)).abs().max() > 1e-4, "does nothing"


@each_row
@pytest.mark.parametrize("host_name", FEW_HOSTS)
def test_counts_known_before_are_the_counts_that_run(row: Row, host_name: str) -> None:
    for strength in row.strengths:
        pruned = pruned_host(row, host_name, strength)
        seen: dict[str, list[int]] = {"attention": [], "mlp": []}

        def note(kind: str, seen: dict[str, list[int]] = seen) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
            return lambda module, inputs: seen[kind].append(inputs[0].shape[:2].numel())

        for block in pruned.host.blocks:
            block.norm1.register_forward_pre_hook(note("attention"))
            block.norm2.register_forward_pre_hook(note("mlp"))
        with torch.no_grad():
            _, trace = pruned.forward_with_trace(pixels_for(pruned.host, batch=2))
        assert pruned.ragged == row.ragged
        plans = trace.plans if len(trace.plans) == 2 else 2 * trace.plans
        assert seen["attention"] == [a.attention + b.attention for a, b in zip(*plans, strict=True)]
        assert seen["mlp"] == [a.mlp + b.mlp for a, b in zip(*plans, strict=True)]
        if not row.ragged:
            assert tuple(block.attention for block in plans[0]) == pruned.token_counts() == trace.token_counts
            assert tuple(block.mlp for block in plans[0]) == pruned.mlp_token_counts() == trace.mlp_token_counts
        else:
            assert (trace.num_kept <= pruned.num_final()).all()
            for plan in plans:
                assert all(block.attention <= most for block, most in zip(plan, pruned.token_counts(), strict=True))
                assert all(block.mlp <= most for block, most in zip(plan, pruned.mlp_token_counts(), strict=True))


@each_row
@pytest.mark.parametrize("host_name", FEW_HOSTS)
def test_the_trace_accounts_for_every_original_token(row: Row, host_name: str) -> None:
    pruned = pruned_host(row, host_name)
    with torch.no_grad():
        _, trace = pruned.forward_with_trace(pixels_for(pruned.host, batch=3))
    if not row.ragged:
        assert trace.num_kept.tolist() == [pruned.num_final()] * 3
    assert trace.kept_index.shape == (3, trace.num_kept.max())
    assert trace.assignment.shape == (3, trace.grid.num_tokens)
    for b, num_final in enumerate(trace.num_kept.tolist()):
        kept, padding = trace.kept_index[b, :num_final], trace.kept_index[b, num_final:]
        assert (kept.diff() > 0).all()
        assert 0 <= kept[0] <= kept[-1] < trace.grid.num_tokens
        assert (padding == -1).all()
        held = trace.assignment[b][trace.assignment[b] >= 0]
        assert sorted(set(held.tolist())) == list(range(num_final)), "every final token holds an original one"
        assert (len(held) < trace.grid.num_tokens) == row.loses_tokens
        assert sorted(trace.assignment[b, kept].tolist()) == list(range(num_final))


@each_row
@pytest.mark.parametrize("host_name", FEW_HOSTS)
def test_each_sample_is_independent_of_its_batch(row: Row, host_name: str) -> None:
    pruned = pruned_host(row, host_name)
    pixels = pixels_for(pruned.host, batch=4)
    with torch.no_grad():
        together = pruned(pixels)
        alone = torch.cat([pruned(pixels[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def cost(pruned: PrunedViT) -> FlopsReport:
    """Of one random view where it depends on the input."""
    with torch.no_grad():
        _, trace = pruned.forward_with_trace(pixels_for(pruned.host, batch=1))
    report = flops(pruned, plans=trace.plans)
    assert report.depends_on_input == pruned.ragged
    if not pruned.ragged:
        assert report == flops(pruned)
    return report


@each_row
def test_cost_falls_with_strength(row: Row) -> None:
    strengths = (row.identity, *row.strengths) if row.saves_on_small_hosts else row.strengths
    totals = [
        cost(pruned_host(row, "VideoMAE", strength)).total_gmacs for strength in strengths if strength is not None
    ]
    assert totals == sorted(totals, reverse=True)
    assert len(set(totals)) == len(totals)


@each_row
@pytest.mark.parametrize("host_name", ["class token", "distilled", "VideoMAE"])
def test_cost_equals_torchs_counter_on_what_runs(row: Row, host_name: str) -> None:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    pruned = pruned_host(row, host_name)
    # The fused CPU attention kernel is missing from the counter's table, so the plain one is forced.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        pruned(pixels_for(pruned.host, batch=1))
    report = cost(pruned)
    run = report.total_gmacs - report.skipped_embedding_gmacs  # which papers count and nobody computes
    assert run == pytest.approx(counter.get_total_flops() / 2e9, rel=1e-6)


@each_row
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_finite(row: Row, dtype: torch.dtype) -> None:
    for host_name in ("class token", "VideoMAE") if row.images else ("VideoMAE",):
        pruned = pruned_host(row, host_name).to(dtype)
        with torch.no_grad():
            logits = pruned(pixels_for(pruned.host).to(dtype))
        assert logits.dtype == dtype
        assert logits.isfinite().all()


@each_row
def test_gradients_reach_every_weight_and_the_host_is_untouched(row: Row) -> None:
    pruned = pruned_host(row, "class token" if row.images else "VideoMAE")
    before = copy.deepcopy(pruned.host.state_dict())
    pruned(pixels_for(pruned.host)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pruned.host.parameters())
    assert list(pruned.host.state_dict()) == list(before)
    assert all(torch.equal(before[name], value) for name, value in pruned.host.state_dict().items())


@pytest.mark.parametrize("name", [name for name in ROWS if name not in COMPILED_ELSEWHERE and not ROWS[name].ragged])
def test_compiles_without_graph_breaks(name: str) -> None:
    import torch._dynamo.testing

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    row = ROWS[name]
    pruned = prune(make_host("VideoMAE", depth=2), row.make(row.strengths[1]))
    pixels = pixels_for(pruned.host)
    compiled = torch.compile(pruned, fullgraph=True, backend=counter, dynamic=False)
    with torch.no_grad():
        expected = pruned(pixels)
        for _ in range(2):
            torch.testing.assert_close(compiled(pixels), expected, atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 1


@each_row
def test_the_host_waits_for_nothing_between_proposal_and_head(row: Row) -> None:
    """Tensors without values refuse every read (item, tolist, a mask as an index, a copy to the host), even of one."""
    pruned = pruned_host(row, "VideoMAE")
    pixels = pixels_for(pruned.host).to("meta")
    pruned = pruned.to("meta")
    with torch.inference_mode():
        if row.ragged:  # counts that depend on the input must be read
            with pytest.raises((NotImplementedError, RuntimeError), match=r"[Mm]eta"):
                pruned.forward_with_trace(pixels)
        else:
            logits, trace = pruned.forward_with_trace(pixels)
            assert (logits.shape, trace.kept_index is not None) == ((2, 7), True)


def test_every_method_has_a_row_and_a_card() -> None:
    cards = Path(__file__).resolve().parents[2] / "docs" / "methods"
    if not cards.is_dir():
        pytest.skip("no docs beside these tests")
    controls = {"random", "uniform", "centre", "frame_difference", "norm"}
    for name in METHODS.names():
        assert name in ROWS or name in TESTED_ELSEWHERE, f"{name} has no row"
        card_name = "controls" if name in controls else SHARED_CARDS.get(name, name)
        card = (cards / f"{card_name}.md").read_text(encoding="utf-8")
        config = METHODS.get(name)
        fields = {field.name for field in dataclasses.fields(config)}
        missing = [field for field in fields if f"`{field}`" not in card]
        assert not missing, f"the card of {name} does not say what {missing} are"
