"""DiffRate against loops over tokens, the cost that its authors publish, and the forms of their file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo.testing

from tests.hosts import make_host, pixels_for
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnknownNameError
from vidprune.profiling.flops import flops
from vidprune.pruners.diffrate import DiffRate
from vidprune.pruning import host_info, prune
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.moves import follow_moves
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid

ensure_torchvision()
import timm  # noqa: E402  (the guard above must come first)

# Published for DeiT-S at 2.9 and DeiT-B at 11.5 GFLOPs: facts of the authors' file, not part of the package.
DEIT_S = (
    [197, 196, 190, 168, 150, 139, 129, 117, 99, 78, 58, 3],
    [197, 194, 176, 156, 141, 133, 121, 107, 88, 64, 56, 3],
)
DEIT_B = (
    [197, 197, 197, 188, 170, 154, 139, 123, 107, 72, 43, 3],
    [197, 197, 192, 178, 158, 145, 127, 111, 94, 50, 35, 3],
)


@pytest.mark.parametrize(
    ("name", "lists", "gflops"),
    [("deit_small_patch16_224", DEIT_S, 2.9053), ("deit_base_patch16_224", DEIT_B, 11.517)],
)
def test_the_published_lists_cost_what_is_published(
    name: str, lists: tuple[list[int], list[int]], gflops: float
) -> None:
    with torch.device("meta"):
        host = timm.create_model(name)
    pruned = prune(host, DiffRate(prune_kept=lists[0], merge_kept=lists[1]), self_check=False)
    report = flops(pruned)
    one_more_patch = 16 * 16 * 3 * host.embed_dim / 1e9  # which the authors embed in their count
    assert report.total_gmacs - report.reduction_gmacs + one_more_patch == pytest.approx(gflops, abs=5e-4)
    assert pruned.mlp_token_counts() == tuple(lists[1])


def random_state(num_prefix: int, sizes: bool, seed: int = 0) -> tuple[TokenState, AttentionInputs]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(2, num_prefix + 16, 32, generator=generator)
    queries, keys, values = torch.randn(3, 2, 4, num_prefix + 16, 8, generator=generator)
    weights = 1 + 3 * torch.rand(2, num_prefix + 16, generator=generator) if sizes else None
    state = TokenState(tokens, TokenGrid(1, 4, 4), num_prefix, sizes=weights)
    return state, AttentionInputs(queries, keys, values, 8**-0.5)


@pytest.mark.parametrize("sizes", [False, True])
@pytest.mark.parametrize(("prune_to", "merge_to"), [(16, 11), (13, 9), (12, 16), (9, 2)])
def test_one_block_equals_loops_over_tokens(prune_to: int, merge_to: int, sizes: bool) -> None:
    host = make_host("class token")
    step = DiffRate(prune_kept=[1 + prune_to] * 3, merge_kept=[1 + merge_to] * 3).build(host_info(host))
    state, seen = random_state(1, sizes)
    after = step(state, seen, 1, step.num_left(1, 16))
    place, assignment = follow_moves(after.moves, 2, 16, torch.device("cpu"))
    for b in range(2):
        old = state.tokens[b, 1:].double().numpy()
        old_sizes = np.ones(16) if state.sizes is None else state.sizes[b, 1:].double().numpy()
        logits = (seen.queries[b, :, :1] * seen.scale @ seen.keys[b].transpose(1, 2)).double()
        attention = logits.softmax(-1).mean(0)[0, 1:].numpy()
        ranked = [int(token) for token in np.argsort(-attention, kind="stable")][:prune_to]
        kept, guests = sorted(ranked[:merge_to]), ranked[merge_to:]
        groups = {host: [host] for host in kept}
        new_sizes = {host: old_sizes[host] for host in kept}
        for guest in guests:
            cosine = {h: old[guest] @ old[h] / np.linalg.norm(old[guest]) / np.linalg.norm(old[h]) for h in kept}
            best = max(kept, key=lambda h: cosine[h])
            groups[best].append(guest)
            new_sizes[best] += old_sizes[guest] * max(0.0, cosine[best])
        assert place[b].tolist() == kept
        for row, host_token in enumerate(kept):
            expected = old[groups[host_token]].mean(axis=0)
            np.testing.assert_allclose(after.tokens[b, 1 + row].numpy(), expected, atol=1e-5)
            assert sorted((assignment[b] == row).nonzero()[:, 0].tolist()) == sorted(groups[host_token])
            if after.sizes is not None:
                assert float(after.sizes[b, 1 + row]) == pytest.approx(new_sizes[host_token], abs=1e-5)
        assert torch.equal(after.tokens[b, 0], state.tokens[b, 0])  # the class token takes no part
    assert (after.sizes is None) == (not sizes and merge_to >= prune_to)


def test_sizes_count_in_later_attention() -> None:
    host = make_host("class token")
    lists = {"prune_kept": [17, 17, 17], "merge_kept": [12, 17, 17]}
    pixels = pixels_for(host)
    pruned = prune(host, DiffRate(**lists))
    with torch.no_grad():
        with_sizes = pruned(pixels)
        pruned.block_step.proportional = False
        pruned._plan = pruned.plan(16)
        assert (pruned(pixels) - with_sizes).abs().max() > 1e-4


def test_counts_above_what_is_there_do_nothing() -> None:
    host = make_host("registers")  # 5 prefix tokens and 16 patches
    assert prune(host, DiffRate(prune_kept=[21, 15, 99])).mlp_token_counts() == (21, 15, 15)
    assert prune(host, DiffRate(merge_kept=[99, 12, 14])).mlp_token_counts() == (21, 12, 12)
    assert prune(host, DiffRate(prune_kept=[21, 12, 10], merge_kept=[18, 14, 9])).mlp_token_counts() == (18, 12, 9)


def test_compiles_without_graph_breaks() -> None:
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    pruned = prune(make_host("class token", depth=2), DiffRate(prune_kept=[15, 11], merge_kept=[13, 11]))
    pixels = pixels_for(pruned.host)
    with torch.no_grad():
        compiled = torch.compile(pruned, fullgraph=True, backend=counter, dynamic=False)(pixels)
        torch.testing.assert_close(compiled, pruned(pixels), atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 1


# --- the file


def test_the_published_form_and_a_plain_one(tmp_path: Path) -> None:
    file = tmp_path / "rates.json"
    published = {
        "ViT-S-DeiT": {"2.9": {"prune_kept_num": str([17, 15, 13]), "merge_kept_num": str([17, 14, 3])}},
        "CAFormer": {"5.2": {"prune_kept_num": "None", "merge_kept_num": "[17, 12, 9]"}},
    }
    file.write_text(json.dumps(published))
    host = make_host("class token")
    assert prune(host, DiffRate(str(file), entry="ViT-S-DeiT/2.9")).mlp_token_counts() == (17, 14, 3)
    assert prune(host, DiffRate(file, entry="CAFormer/5.2")).mlp_token_counts() == (17, 12, 9)
    with pytest.raises(ConfigError, match=r"hold 2 schedules; set entry to one of ViT-S-DeiT/2.9, CAFormer/5.2"):
        prune(host, DiffRate(str(file)))
    with pytest.raises(UnknownNameError, match=r"unknown entry 'ViT-S-DeiT/2.7': did you mean 'ViT-S-DeiT/2.9'"):
        prune(host, DiffRate(str(file), entry="ViT-S-DeiT/2.7"))
    file.write_text(json.dumps({"merge_kept_num": [17, 9, 8], "prune_kept_num": None}))
    assert prune(host, DiffRate(str(file))).mlp_token_counts() == (17, 9, 8)


BAD_FILES = {
    "not JSON": ("{", "are not JSON"),
    "no lists": ('{"a": {"b": [1]}}', 'hold no {"prune_kept_num"'),
    "a list alone": ("[1, 2]", 'hold no {"prune_kept_num"'),
    "words": ('{"prune_kept_num": "many"}', "must be a list of whole numbers, one per block, got 'many'"),
    "fractions": ('{"prune_kept_num": [17, 3.5, 2]}', "list of whole numbers"),
    "length": ('{"prune_kept_num": [17, 16]}', "counts for 2 blocks, this host has 3"),
    "no patch left": ('{"prune_kept_num": [17, 16, 1]}', "include the 1 prefix tokens of this host .* got 1"),
}


@pytest.mark.parametrize(("text", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "rates.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        prune(make_host("class token"), DiffRate(str(tmp_path / "rates.json")))


def test_bad_fields(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read rates .*No such file"):
        prune(make_host("class token"), DiffRate(str(tmp_path / "none.json")))
    with pytest.raises(ConfigError, match="either rates, a JSON file, or prune_kept"):
        DiffRate()
    with pytest.raises(ConfigError, match="either rates"):
        DiffRate("a.json", prune_kept=[1])
    with pytest.raises(ConfigError, match="prune_kept must be a list of whole numbers"):
        DiffRate(prune_kept="197")
    with pytest.raises(ConfigError, match="needs a class token"):
        prune(make_host("VideoMAE"), DiffRate(prune_kept=[9, 9, 9], score="class"))
    assert "no class token" in prune(make_host("VideoMAE"), DiffRate(prune_kept=[9, 9, 9])).notes()[0]
    assert DiffRate(prune_kept=[9, 9]) == DiffRate(prune_kept=(9, 9))
    assert hash(DiffRate(prune_kept=[9, 9])) == hash(DiffRate(prune_kept=(9, 9)))
