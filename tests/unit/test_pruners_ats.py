"""ATS: sampling held to brute force, whole models to loops; counts, substitutes, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.hosts import make_host, pixels_for, run_by_hand
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError
from vidprune.pruners.ats import ATS
from vidprune.pruning import prune
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.rounding import round_count
from vidprune.tokens.sampling import inverse_cdf_mask

ensure_torchvision()
import timm  # noqa: E402


def sampled_by_hand(scores: np.ndarray, num_levels: int) -> list[int]:
    """Every level looks at every token."""
    order = sorted(range(len(scores)), key=lambda i: (scores[i], i))
    total = np.cumsum([np.float64(scores[i]) for i in order])
    total = (total - total[0]) / (total[-1] - total[0])
    first = min(value for value in total if value > 0)
    picked = set()
    for level in np.linspace(first, 1.0, num_levels):
        picked.add(order[int(np.abs(total - level).argmin())])
    return sorted(picked)


def drawn(scores: Tensor, num_levels: int) -> Tensor:
    """The places that were drawn, ascending."""
    return inverse_cdf_mask(scores, num_levels).nonzero()[:, 0]


@pytest.mark.parametrize("sharpness", [0.1, 1.0, 3.0])
@pytest.mark.parametrize(("num_tokens", "num_levels"), [(2, 5), (9, 9), (50, 17), (196, 196), (196, 400)])
def test_sampling_equals_brute_force(sharpness: float, num_tokens: int, num_levels: int) -> None:
    for seed in range(5):
        scores = np.random.default_rng(seed).normal(size=num_tokens) * sharpness
        scores = np.exp(scores).astype(np.float32)
        index = drawn(torch.from_numpy(scores), num_levels)
        assert index.tolist() == sampled_by_hand(scores, num_levels)


def test_a_level_between_two_tokens_takes_the_first_and_what_is_no_score_counts_as_zero() -> None:
    assert drawn(torch.tensor([0.0, 1.0, 1.0, 1.0, 1.0]), 3).tolist() == [1, 2, 4]  # sums 0 to 1, levels .25, .625, 1
    odd = torch.tensor([float("nan"), 1.0, 1.0, -2.0, 2.0, -2.0])
    assert drawn(odd, 4).tolist() == sampled_by_hand(np.array([0.0, 1.0, 1.0, 0.0, 2.0, 0.0]), 4)


def test_sampling_of_ties_keeps_the_first_and_spreads_over_equal_scores() -> None:
    assert drawn(torch.tensor([0.0, 2.0, 0.0, 2.0]), 3).tolist() == [1, 3]
    equal = drawn(torch.ones(100), 10)
    assert len(equal) == 10
    assert equal.diff().max() - equal.diff().min() <= 1


@pytest.mark.parametrize(
    "scores",
    [torch.zeros(6), torch.full((6,), float("nan")), torch.tensor([5.0]), torch.tensor([1e-40] * 6), -torch.ones(6)],
    ids=["zero", "NaN", "one token", "denormal", "negative"],
)
def test_sampling_always_keeps_something(scores: Tensor) -> None:
    for num_levels in (1, 2, 6):
        index = drawn(scores, num_levels)
        assert 1 <= len(index) <= min(len(scores), num_levels)
        assert (index.diff() > 0).all()
        assert 0 <= index[0] <= index[-1] < len(scores)


def test_one_level_is_the_best_token_and_the_winner_always_stays() -> None:
    scores = torch.rand(40, generator=torch.Generator().manual_seed(0))
    assert drawn(scores, 1).tolist() == [int(scores.argmax())]
    for num_levels in range(2, 40):
        assert int(scores.argmax()) in drawn(scores, num_levels).tolist()


def test_sampling_is_the_same_for_half_precision_and_any_order() -> None:
    scores = torch.rand(64, generator=torch.Generator().manual_seed(1)).bfloat16()
    scores = scores + torch.arange(64) / 32  # distinct
    order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
    shuffled = drawn(scores[order], 30)
    assert sorted(order[shuffled].tolist()) == drawn(scores, 30).tolist()


def test_peaked_attention_keeps_few_and_even_attention_many_even_with_a_draw_for_each_token() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(196, generator=generator)
    even, peaked = (len(drawn((noise * s).softmax(0), 196)) for s in (0.1, 4.0))
    assert 150 < even < 196, "a draw for each token is not the identity"
    assert peaked < 40


@pytest.mark.parametrize("host_name", ["class token", "no class token", "registers", "distilled", "VideoMAE"])
@pytest.mark.parametrize("keep_ratio", [1.0, 0.5])
def test_equals_the_loops(host_name: str, keep_ratio: float) -> None:
    host = make_host(host_name).double()
    pixels = pixels_for(host, batch=3).double()
    prefix, has_class = host.num_prefix_tokens, bool(host.has_class_token)
    with torch.no_grad():
        logits, trace = prune(host, ATS(keep_ratio, blocks=(0, 2), min_samples=4)).forward_with_trace(pixels)
    values: list[Tensor] = []
    for block in host.blocks:  # the loops get keys alone
        block.attn.qkv.register_forward_hook(lambda module, inputs, output: values.append(output[:, -32:]))
    for b in range(3):
        place = list(range(trace.grid.num_tokens))

        def between(block: int, x: Tensor, probs: Tensor, keys: Tensor, place: list[int] = place) -> Tensor:
            if block == 1:
                return x
            attention = (probs[:, 0] if has_class else probs[:, prefix:].mean(1)).mean(0)[prefix:]
            scores = attention.float() * values[-1].float().norm(dim=1)[prefix:]
            levels = max(4, round((len(scores) + has_class) * keep_ratio)) - has_class
            kept = sampled_by_hand(scores.numpy(), min(levels, len(scores)))
            place[:] = [place[i] for i in kept]
            return torch.cat((x[:prefix], x[prefix:][kept]))

        with torch.no_grad():
            torch.testing.assert_close(logits[b], run_by_hand(host, pixels[b : b + 1], between))
        assert trace.kept_index[b, : trace.num_kept[b]].tolist() == place


def test_default_blocks_are_those_of_the_paper_and_counts_have_bounds() -> None:
    with torch.device("meta"):
        host = timm.create_model("deit_small_patch16_224")
    pruned = prune(host, ATS(0.7))
    step = pruned.block_step
    assert [block for block in range(12) if step.acts(block, 196)] == list(range(3, 12))
    assert step.num_left(3, 196) == round_count(197, 0.7) - 1 == 137
    assert step.num_left(3, 10) == 7, "at least 8 draws, of which the class token takes one"
    assert step.num_left(3, 5) == 5
    assert pruned.token_counts()[3] == 197
    assert pruned.mlp_token_counts()[3] == 138


def test_rows_of_dropped_tokens_are_never_computed() -> None:
    host = make_host("class token")
    seen: list[int] = []
    host.blocks[1].attn.proj.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    with torch.no_grad():
        _, trace = prune(host, ATS(0.5, blocks=[1])).forward_with_trace(pixels_for(host, batch=1))
    assert seen[-1] == 1 + trace.num_kept.item() < 17
    assert trace.plans[0][1].rows == seen[-1]
    assert trace.plans[0][1].attention == 17


def test_substitute_is_said_and_class_attention_refused_without_class_token() -> None:
    host = make_host("VideoMAE")
    (note,) = prune(host, ATS(0.5)).notes()
    assert "no class token" in note
    assert prune(make_host("class token"), ATS(0.5)).notes() == ()
    with pytest.raises(ConfigError, match="ats with score='class' needs a class token"):
        prune(host, ATS(0.5, score="class"))


@pytest.mark.parametrize("options", [{"min_samples": 0}, {"min_samples": 2.5}, {"score": "norm"}, {"blocks": [3, 1]}])
def test_bad_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        ATS(0.5, **options)  # type: ignore[arg-type]


def test_a_draw_sees_one_sample_alone() -> None:
    step = prune(make_host("class token"), ATS(0.8)).block_step
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 4, 17, 8, generator=generator) for _ in range(3))
    kept = step.keep(AttentionInputs(q, k, v, 1.0), 1, torch.arange(16))
    expected = ((q[:, :, :1] @ k.transpose(2, 3)).softmax(-1).mean(1)[0, 0, 1:] * v[0].norm(dim=(0, 2))[1:]).numpy()
    assert kept.nonzero()[:, 0].tolist() == sampled_by_hand(expected, 13)
