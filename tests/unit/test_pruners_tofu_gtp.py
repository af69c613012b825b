"""ToFu and GTP: their graphs and whole models by loops, the cost that published figures give, refusals."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.hosts import make_host, pixels_for, run_by_hand
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError
from vidprune.profiling.flops import flops
from vidprune.pruners.controls import Norm, Uniform
from vidprune.pruners.gtp import GTP
from vidprune.pruners.tofu import ToFu
from vidprune.pruners.tome import ToMe
from vidprune.pruning import prune
from vidprune.tokens.propagate import normalised_graph, semantic_neighbours, spatial_neighbours
from vidprune.types import TokenGrid

ensure_torchvision()
import timm  # noqa: E402


def matched(keys: Tensor, prefix: int, r: int) -> tuple[list[int], dict[int, int]]:
    """(tokens that stay, in ToMe's order; matched token -> partner), over the sequence with its prefix."""
    metric = normalize(keys.mean(0), dim=-1)
    a = [i for i in range(prefix, len(metric)) if i % 2 == 0]
    b = [i for i in range(prefix, len(metric)) if i % 2 == 1]
    best = {i: max(b, key=lambda j, i=i: float(metric[i] @ metric[j])) for i in a}
    gone = sorted(a, key=lambda i: -float(metric[i] @ metric[best[i]]))[:r]
    return [*range(prefix), *(i for i in a if i not in gone), *b], {i: best[i] for i in gone}


@pytest.mark.parametrize("host_name", ["class token", "distilled"])
def test_tofu_drops_early_and_merges_late(host_name: str) -> None:
    host = make_host(host_name).double()

    def between(block: int, x: Tensor, probs: Tensor, keys: Tensor) -> Tensor:
        stays, partner = matched(keys, host.num_prefix_tokens, 3)
        rows = []
        for i in stays:
            guests = [j for j, host_of_j in partner.items() if host_of_j == i] if block == 2 else []
            mean = x[[i, *guests]].mean(0)
            largest = x[[i, *guests]].norm(dim=1).max()
            rows.append(mean / mean.norm() * largest if guests else x[i])
        return torch.stack(rows)

    pixels = pixels_for(host).double()
    with torch.no_grad():
        logits, trace = prune(host, ToFu(3)).forward_with_trace(pixels)  # 3 blocks: 0 and 1 drop, 2 merges
        expected = torch.stack([run_by_hand(host, sample[None], between) for sample in pixels])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    assert trace.sizes.sum(1).tolist() == [10.0, 10.0], "six were dropped, three merged"
    assert ((trace.assignment < 0).sum(1) == 6).all()


def test_tofu_costs_what_tome_costs() -> None:
    with torch.device("meta"):
        host = timm.create_model("vit_base_patch16_224")
    tofu, tome = (flops(prune(host, config), convention="fvcore") for config in (ToFu(16), ToMe(16)))
    assert tofu.total_gmacs == tome.total_gmacs == pytest.approx(8.78, rel=0.001)


@pytest.mark.parametrize("shape", [(1, 3, 4), (2, 2, 3)])
def test_spatial_neighbours_touch(shape: tuple[int, int, int]) -> None:
    grid = TokenGrid(*shape)
    cells = list(itertools.product(*map(range, shape)))
    place = torch.randperm(grid.num_tokens, generator=torch.Generator().manual_seed(0))[None, :9]
    near = spatial_neighbours(place, grid)
    for a, b in itertools.product(range(9), repeat=2):
        distance = max(abs(p - q) for p, q in zip(cells[place[0, a]], cells[place[0, b]], strict=True))
        assert near[0, a, b] == (distance == 1)


def test_the_centre_of_an_image_has_8_neighbours_and_of_a_video_26() -> None:
    for grid, centre, count in ((TokenGrid(1, 3, 3), 4, 8), (TokenGrid(3, 3, 3), 13, 26)):
        assert spatial_neighbours(torch.arange(grid.num_tokens)[None], grid)[0, centre].sum() == count


def test_semantic_neighbours_are_the_nearest_others() -> None:
    tokens = torch.randn(2, 10, 4, generator=torch.Generator().manual_seed(0))
    near = semantic_neighbours(tokens, 3)
    for b, i in itertools.product(range(2), range(10)):
        cosine = [float(normalize(tokens[b, i], dim=0) @ normalize(tokens[b, j], dim=0)) for j in range(10)]
        cosine[i] = -2.0
        assert near[b, i].nonzero()[:, 0].tolist() == sorted(sorted(range(10), key=cosine.__getitem__)[-3:])
    assert semantic_neighbours(tokens[:, :3], 8)[0].sum(1).tolist() == [2, 2, 2], "all others where there are few"


def test_the_graph_is_normalised_by_row_degrees_and_bears_isolated_tokens() -> None:
    adjacency = torch.tensor([[[0, 1, 1, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]]], dtype=torch.bool)
    degree = [2, 1, 2, 0]
    expected = [[adjacency[0, i, j].item() / math.sqrt(degree[i] * degree[j] or 1) for j in range(4)] for i in range(4)]
    torch.testing.assert_close(normalised_graph(adjacency)[0], torch.tensor(expected))


@pytest.mark.parametrize("host_name", ["class token", "VideoMAE", "distilled"])
def test_gtp_equals_the_loops(host_name: str) -> None:
    host = make_host(host_name).double()
    p = host.num_prefix_tokens
    pixels = pixels_for(host).double()
    alpha = 0.3

    def run(sample: Tensor) -> Tensor:
        embedded = host._pos_embed(host.patch_embed(sample))[:, p:]
        places = torch.arange(embedded.shape[1])[None]
        grid = prune(host, GTP(1)).token_grid
        graph = normalised_graph(spatial_neighbours(places, grid) | semantic_neighbours(embedded, 4))[0].double()
        alive = list(range(embedded.shape[1]))

        def between(block: int, x: Tensor, probs: Tensor, keys: Tensor) -> Tensor:
            nonlocal alive
            diagonal = torch.stack([probs[:, i, i].max() for i in range(len(x))])
            column = torch.stack([probs[:, :, i].sum(1).max() for i in range(len(x))])
            score = (diagonal * column)[p:]
            gone = sorted(range(len(score)), key=lambda i: float(score[i]))[:5]
            stays = [i for i in range(len(score)) if i not in gone]
            rows = [x[p + i] + alpha * sum(graph[alive[i], alive[j]] * x[p + j] for j in gone) for i in stays]
            alive = [alive[i] for i in stays]
            return torch.cat((x[:p], torch.stack(rows)))

        return run_by_hand(host, sample, between)

    with torch.no_grad():
        logits = prune(host, GTP(5, alpha=alpha, num_neighbours=4))(pixels)
        expected = torch.stack([run(sample[None]) for sample in pixels])
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


def test_gtp_without_propagation_is_plain_dropping() -> None:
    host = make_host("class token")
    pixels = pixels_for(host)
    with torch.no_grad():
        none, some = (prune(host, GTP(4, alpha=alpha))(pixels) for alpha in (0.0, 0.2))
        spatial = prune(host, GTP(4, alpha=0.0, graph="spatial"))(pixels)
    assert torch.equal(none, spatial), "the graph plays no part at alpha 0"
    assert (none - some).abs().max() > 1e-3


def test_gtp_sizes_grow_by_what_a_token_received() -> None:
    host = make_host("class token")
    pixels = pixels_for(host)
    _, trace = prune(host, GTP(2, proportional_attention=True)).forward_with_trace(pixels)
    assert (trace.sizes >= 1).all()
    assert (trace.sizes > 1).any()
    assert trace.sizes.shape == trace.kept_index.shape == (2, 10)


def test_gtp_always_leaves_one_token() -> None:
    pruned = prune(make_host("class token"), [Uniform(0.5), GTP(6)])
    assert pruned.mlp_token_counts() == (3, 2, 2)
    assert pruned(pixels_for(pruned.host)).isfinite().all()


def test_norm_keeps_the_longest_embeddings() -> None:
    host = make_host("distilled")
    pixels = pixels_for(host)
    with torch.no_grad():
        _, trace = prune(host, Norm(0.5)).forward_with_trace(pixels)
        lengths = host._pos_embed(host.patch_embed(pixels))[:, 2:].norm(dim=2).tolist()
    for kept, length in zip(trace.kept_index.tolist(), lengths, strict=True):
        assert kept == sorted(sorted(range(16), key=length.__getitem__)[-9:])


@pytest.mark.parametrize(
    ("config", "bad", "message"),
    [
        (ToFu, {"r": -1}, "r must be"),
        (ToFu, {"r": 3, "merge_from": 1.5}, "merge_from must be"),
        (GTP, {"num_propagated": -2}, "num_propagated must be a whole number from 0, got -2"),
        (GTP, {"num_propagated": 2, "alpha": float("nan")}, "alpha"),
        (GTP, {"num_propagated": 2, "graph": "temporal"}, "graph must be one of mixed, spatial, semantic"),
        (GTP, {"num_propagated": 2, "num_neighbours": 0}, "num_neighbours"),
        (Norm, {"keep_ratio": 0}, "keep_ratio"),
    ],
)
def test_bad_values_are_refused(config: type, bad: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config(**bad)
