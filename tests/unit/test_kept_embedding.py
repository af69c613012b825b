"""Choosing before embedding: the same tokens as embedding all and gathering, on every host that allows it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.hosts import ALL_HOSTS, make_host, pixels_for
from vidprune.errors import ConfigError
from vidprune.models.kept_embedding import can_embed_kept, embed_kept, take_patches
from vidprune.profiling.flops import flops
from vidprune.pruners.controls import Norm, Random
from vidprune.pruners.papr import PaPr
from vidprune.pruners.tome import ToMe
from vidprune.pruning import PrunedViT, prune

FALLS_BACK = {"dynamic size"}


def random_index(batch: int, num_tokens: int, num_kept: int) -> Tensor:
    order = torch.rand(batch, num_tokens, generator=torch.Generator().manual_seed(0)).argsort(dim=1)
    return order[:, :num_kept].sort(dim=1).values


def rows_embedded(pruned: PrunedViT, pixels: Tensor) -> list[int]:
    """How many tokens the patch embedding's own forward gave, call by call."""
    seen: list[int] = []
    handle = pruned.host.patch_embed.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[1]))
    with torch.no_grad():
        pruned(pixels)
    handle.remove()
    return seen


@pytest.mark.parametrize("host_name", [name for name in ALL_HOSTS if name not in FALLS_BACK])
def test_tokens_are_the_host_s_own(host_name: str) -> None:
    host = make_host(host_name)
    assert can_embed_kept(host)
    pixels = pixels_for(host)
    with torch.no_grad():
        full = host.norm_pre(host._pos_embed(host.patch_embed(pixels)))
        kept = random_index(2, full.shape[1] - host.num_prefix_tokens, 5)
        prefix, patches = full.split([host.num_prefix_tokens, full.shape[1] - host.num_prefix_tokens], dim=1)
        expected = torch.cat((prefix, torch.stack([patches[b, kept[b]] for b in range(2)])), dim=1)
        torch.testing.assert_close(embed_kept(host, pixels, kept), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("host_name", ALL_HOSTS)
@pytest.mark.parametrize("method", [Random(0.4), [Random(0.6), ToMe(1)]], ids=["alone", "chain"])
def test_logits_and_trace_equal_embedding_everything(host_name: str, method: object) -> None:
    host = make_host(host_name)
    fast = prune(host, method)  # type: ignore[arg-type]
    plain = prune(host, method, embed_kept=False)  # type: ignore[arg-type]
    pixels = pixels_for(host)
    with torch.no_grad():
        (found, trace), (expected, plain_trace) = fast.forward_with_trace(pixels), plain.forward_with_trace(pixels)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(trace.kept_index, plain_trace.kept_index)
    assert torch.equal(trace.proposal_map, plain_trace.proposal_map)
    assert trace.token_counts == plain_trace.token_counts
    falls_back = host_name in FALLS_BACK
    assert fast.embeds_kept != falls_back
    assert len(rows_embedded(fast, pixels)) == int(falls_back)
    assert len(rows_embedded(plain, pixels)) == 1


def test_where_nothing_is_gained_or_the_tokens_are_needed_all_are_embedded() -> None:
    host = make_host("VideoMAE")
    pixels = pixels_for(host)
    for method in (Random(1.0), Norm(0.5), ToMe(2)):
        assert rows_embedded(prune(host, method), pixels) == [64]  # type: ignore[arg-type]
    with torch.no_grad():
        assert torch.equal(prune(host, Random(1.0))(pixels), host(pixels))
    pruned = prune(host, Random(0.5))
    assert rows_embedded(pruned, pixels) == []
    pruned.embed_kept = False
    assert rows_embedded(pruned, pixels) == [64]
    pruned.embed_kept = True
    assert rows_embedded(pruned.train(), pixels) == [64], "a host in training mode drops positions at random"


def test_hosts_that_embed_in_another_way_fall_back() -> None:
    host = make_host("class token")
    assert can_embed_kept(host)
    host.patch_embed.proj = nn.Conv2d(3, 32, 9, stride=8, padding=1)  # patches that overlap
    assert not can_embed_kept(host)
    assert not prune(host, Random(0.5)).embeds_kept
    host = make_host("class token")
    host.patch_embed.proj = nn.Sequential(host.patch_embed.proj)  # who knows what is in there
    assert not can_embed_kept(host)
    subclass = type("Own", (type(host),), {"_pos_embed": lambda self, x: 2 * x})
    host = make_host("class token")
    host.__class__ = subclass
    assert not can_embed_kept(host)


def test_pixels_of_another_size_are_refused_as_before() -> None:
    pruned = prune(make_host("VideoMAE"), Random(0.5))
    with pytest.raises(ConfigError, match="this VideoMAE takes clips"):
        pruned(torch.zeros(1, 3, 8, 48, 64))
    with pytest.raises(AssertionError, match="Input"):
        prune(make_host("class token"), Random(0.5))(torch.zeros(1, 3, 40, 32))


@pytest.mark.parametrize(("shape", "size"), [((2, 3, 6, 8, 12), (2, 4, 3)), ((2, 3, 8, 12), (4, 3))])
def test_take_patches_against_slicing(shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    pixels = torch.randn(shape).transpose(0, 1).contiguous().transpose(0, 1)  # any strides will do
    counts = [length // step for length, step in zip(shape[2:], size, strict=True)]
    num_tokens = int(torch.tensor(counts).prod())
    kept = random_index(2, num_tokens, 4)
    found = take_patches(pixels, kept, size)
    for b in range(2):
        for row, place in enumerate(kept[b].tolist()):
            window = []
            for count, step in zip(reversed(counts), reversed(size), strict=True):
                window.insert(0, slice(place % count * step, (place % count + 1) * step))
                place //= count
            assert torch.equal(found[b, row], pixels[(b, slice(None), *window)].flatten())


def test_gradients_reach_pixels_weights_and_positions() -> None:
    host = make_host("registers")
    grads = []
    for embed_all in (False, True):
        pixels = pixels_for(host).requires_grad_()
        host.zero_grad()
        prune(host, Random(0.5), embed_kept=not embed_all)(pixels).square().sum().backward()
        weights = (host.patch_embed.proj.weight, host.pos_embed, host.cls_token, host.reg_token)
        grads.append([pixels.grad, *(weight.grad.clone() for weight in weights)])
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("how", ["weights", "autocast"])
def test_half_precision(how: str) -> None:
    host = make_host("registers")
    pixels = pixels_for(host)
    if how == "weights":
        host, pixels = host.to(torch.bfloat16), pixels.to(torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        found, expected = (prune(host, PaPr(0.5, proposal="centre"), embed_kept=kept)(pixels) for kept in (True, False))
    assert found.dtype == expected.dtype
    torch.testing.assert_close(found.float(), expected.float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("host_name", ["VideoMAE", "registers"])
def test_one_graph_under_compile(host_name: str) -> None:
    pruned = prune(make_host(host_name, depth=1), Random(0.5))
    pixels = pixels_for(pruned.host)
    torch._dynamo.reset()
    with torch.no_grad():
        expected = pruned(pixels)
        torch.testing.assert_close(torch.compile(pruned, backend="eager", fullgraph=True)(pixels), expected)


def test_flops_tell_what_is_skipped_and_count_as_papers_do() -> None:
    fast, plain = (flops(prune(make_host("VideoMAE"), Random(0.25), embed_kept=kept)) for kept in (True, False))
    assert fast.skipped_embedding_gmacs == (64 - 16) * 3 * 2 * 16 * 16 * 32 / 1e9
    assert plain.skipped_embedding_gmacs == 0
    assert fast.total_gmacs == plain.total_gmacs
    assert flops(prune(make_host("VideoMAE"), ToMe(2))).skipped_embedding_gmacs == 0


@pytest.mark.gpu
def test_on_a_gpu() -> None:
    pruned = prune(make_host("VideoMAE"), Random(0.5)).cuda()
    pixels = pixels_for(pruned.host).cuda()
    with torch.no_grad():
        found = pruned(pixels)
        pruned.embed_kept = False
        torch.testing.assert_close(found, pruned(pixels), rtol=1e-4, atol=1e-4)
