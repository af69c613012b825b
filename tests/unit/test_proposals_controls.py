"""The controls do what they say, on any grid, alone or in a batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.proposals import create_proposal
from vidprune.proposals.controls import hash32
from vidprune.types import TokenGrid

CONTROLS = ("random", "uniform", "centre", "frame_difference")
GRID = TokenGrid(8, 14, 14)
GRIDS = (GRID, TokenGrid(1, 14, 14), TokenGrid(4, 7, 7), TokenGrid(8, 16, 16), TokenGrid(3, 5, 9), TokenGrid(8, 20, 28))


def make_clip(seed: int, batch: int = 1, shape: tuple[int, int, int] = (16, 64, 64)) -> Tensor:
    """Normalised 8-bit pixels, as decoded frames give."""
    pixels = np.random.default_rng(seed).integers(0, 256, (batch, 3, *shape)) / 255
    mean, std = (np.array(v).reshape(3, 1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    return torch.from_numpy((pixels - mean) / std).float()


def top(scores: Tensor, num_kept: int) -> np.ndarray:
    """Kept token numbers of each clip, ties to the lower number: [B, K] ascending."""
    order = np.argsort(-scores.flatten(1).numpy(), axis=1, kind="stable")[:, :num_kept]
    return np.sort(order, axis=1)


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: "x".join(map(str, g.shape)))
def test_answers_on_the_token_grid(name: str, grid: TokenGrid) -> None:
    proposal = create_proposal(name)
    scores = proposal(make_clip(0, batch=2), grid=grid)
    assert scores.shape == (2, *grid.shape)
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores).all()
    assert proposal.gmacs((16, 224, 224)) == 0.0
    assert proposal.checkpoint_source == "no weights"


@pytest.mark.parametrize("name", CONTROLS)
def test_asks_for_the_grid_and_for_clips(name: str) -> None:
    proposal = create_proposal(name)
    with pytest.raises(ConfigError, match="pass grid=TokenGrid"):
        proposal(make_clip(0))
    with pytest.raises(ConfigError, match=r"clips \[B, 3, T, H, W\]"):
        proposal(torch.zeros(1, 3, 8, 8), grid=GRID)


@pytest.mark.parametrize("name", CONTROLS)
def test_a_clip_s_scores_do_not_depend_on_its_batch(name: str) -> None:
    proposal = create_proposal(name)
    clips = make_clip(0, batch=5)
    together = proposal(clips, grid=GRID)
    for i in range(5):
        assert torch.equal(together[i : i + 1], proposal(clips[i : i + 1], grid=GRID))
    assert torch.equal(together.flip(0), proposal(clips.flip(0), grid=GRID))


@pytest.mark.parametrize("name", CONTROLS)
def test_one_graph_under_compile(name: str) -> None:
    proposal = create_proposal(name)
    clip = make_clip(0, batch=2)
    expected = proposal(clip, grid=GRID)
    torch._dynamo.reset()
    compiled = torch.compile(proposal, backend="aot_eager", fullgraph=True)
    assert torch.equal(compiled(clip, grid=GRID), expected)


def reference_hash(x: int) -> int:
    """lowbias32 on unsigned 32-bit numbers, as published."""
    x ^= x >> 16
    x = (x * 0x7FEB352D) % 2**32
    x ^= x >> 15
    x = (x * 0x846CA68B) % 2**32
    return x ^ (x >> 16)


def test_hash_equals_unsigned_arithmetic() -> None:
    numbers = [0, 1, 2, 2**31 - 1, 2**31, 2**32 - 1, *np.random.default_rng(0).integers(0, 2**32, 500).tolist()]
    expected = [reference_hash(x) for x in numbers]
    assert hash32(torch.tensor(numbers, dtype=torch.int64)).tolist() == expected
    assert [hash32(x) for x in numbers] == expected


def test_random_differs_by_clip_and_seed_and_is_repeatable() -> None:
    clips = make_clip(0, batch=2)
    clips = torch.cat([clips, clips[:1]])
    scores = create_proposal("random")(clips, grid=GRID)
    assert torch.equal(scores[0], scores[2])  # equal pixels, equal subset
    other_seed = create_proposal("random", seed=1)(clips, grid=GRID)
    assert torch.equal(create_proposal("random", seed=0)(clips, grid=GRID), scores)
    num_kept = 470
    expected = num_kept**2 / GRID.num_tokens  # shared tokens of two independent subsets
    spread = 5 * (expected * (1 - num_kept / GRID.num_tokens) ** 2) ** 0.5
    first, second, _ = (set(row) for row in top(scores, num_kept))
    reseeded = set(top(other_seed, num_kept)[0])
    for subset in (second, reseeded):
        assert abs(len(first & subset) - expected) < spread


def test_random_uses_no_generator_and_is_the_same_in_threads() -> None:
    clips = [make_clip(i) for i in range(8)]
    proposal = create_proposal("random")
    state = torch.get_rng_state()
    expected = [proposal(clip, grid=GRID) for clip in clips]
    assert torch.equal(torch.get_rng_state(), state)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda clip: proposal(clip, grid=GRID), clips))
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_random_is_the_same_in_float16_and_one_pixel_changes_it() -> None:
    clip = make_clip(0)
    proposal = create_proposal("random")
    scores = proposal(clip, grid=GRID)
    assert torch.equal(proposal(clip.half(), grid=GRID), scores)
    assert torch.equal(proposal(clip * (1 + 1e-7), grid=GRID), scores)  # another device's last bit
    changed = clip.clone()
    changed[0, 1, 3, 8, 16] += 1 / 255 / 0.224
    assert (proposal(changed, grid=GRID) != scores).float().mean() > 0.99


@pytest.mark.parametrize("vary", ["clips", "seeds"])
def test_random_covers_every_token_equally(vary: str) -> None:
    rounds, num_kept = 400, 470
    if vary == "clips":
        scores = create_proposal("random")(make_clip(0, batch=rounds, shape=(2, 16, 16)), grid=GRID)
    else:
        clip = make_clip(0, shape=(2, 16, 16))
        scores = torch.cat([create_proposal("random", seed=s)(clip, grid=GRID) for s in range(rounds)])
    counts = np.bincount(top(scores, num_kept).ravel(), minlength=GRID.num_tokens)
    share = num_kept / GRID.num_tokens
    variance = rounds * share * (1 - share)
    chi2 = ((counts - rounds * share) ** 2 / variance).mean()  # 1 +- sqrt(2 / N) = .036 for independent uniform subsets
    assert abs(chi2 - 1) < 0.2
    assert np.abs(counts - rounds * share).max() < 5 * variance**0.5
    # No order in space either: what neighbours get is unrelated.
    z = (scores - scores.mean()) / scores.std()
    for a, b in ((z[..., :-1], z[..., 1:]), (z[:, :, :-1], z[:, :, 1:]), (z[:, :-1], z[:, 1:])):
        assert abs(float((a * b).mean())) < 5 / a.numel() ** 0.5


def box_error(kept: np.ndarray, grid: TokenGrid, box: tuple[int, int, int]) -> float:
    """By how many tokens the fullest or emptiest `box` of the grid is off its share."""
    mask = np.zeros(grid.num_tokens)
    mask[kept] = 1
    mask = mask.reshape(grid.shape)
    bt, bh, bw = (min(b, n) for b, n in zip(box, grid.shape, strict=True))
    windows = np.lib.stride_tricks.sliding_window_view(mask, (bt, bh, bw)).sum(axis=(3, 4, 5))
    return float(np.abs(windows - len(kept) / grid.num_tokens * bt * bh * bw).max())


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: "x".join(map(str, g.shape)))
@pytest.mark.parametrize("keep_ratio", [0.1, 0.3, 0.45, 0.5, 0.7])
def test_uniform_fills_every_box_evenly(grid: TokenGrid, keep_ratio: float) -> None:
    num_kept = int(grid.num_tokens * keep_ratio)
    kept = top(create_proposal("uniform")(make_clip(0), grid=grid), num_kept)[0]
    rng = np.random.default_rng(0)
    random_error = [box_error(rng.permutation(grid.num_tokens)[:num_kept], grid, (4, 7, 7)) for _ in range(20)]
    assert box_error(kept, grid, (4, 7, 7)) < 3.0
    if grid.num_tokens >= 1000:
        assert box_error(kept, grid, (4, 7, 7)) < 0.5 * np.median(random_error)


def test_uniform_matches_its_formula_and_grows_with_the_count() -> None:
    grid = TokenGrid(3, 5, 9)
    phi, rho = (1 + 5**0.5) / 2, np.roots([1, 0, -1, -1])[0].real
    number = [(t / phi + h / rho + w / rho**2) % 1 for t in range(3) for h in range(5) for w in range(9)]
    scores = create_proposal("uniform")(make_clip(0, batch=2), grid=grid)
    assert torch.equal(scores[0], scores[1])
    order = np.argsort(-np.array(number))
    assert np.array_equal(np.argsort(-scores[0].flatten().numpy()), order)
    assert len(set(scores[0].flatten().tolist())) == grid.num_tokens  # no ties, so every count is exact


@pytest.mark.parametrize("grid", GRIDS, ids=lambda g: "x".join(map(str, g.shape)))
def test_centre_keeps_whole_rings_and_spreads_the_last_over_time(grid: TokenGrid) -> None:
    scores = create_proposal("centre")(make_clip(0), grid=grid)[0].numpy()
    h, w = np.meshgrid(np.arange(grid.h), np.arange(grid.w), indexing="ij")
    distance = ((h + 0.5) / grid.h - 0.5) ** 2 + ((w + 0.5) / grid.w - 0.5) ** 2
    distance = np.broadcast_to(distance.round(12), grid.shape)
    order = np.argsort(-scores.ravel(), kind="stable")
    assert (np.diff(distance.ravel()[order]) >= 0).all()
    for num_kept in (int(grid.num_tokens * z) for z in (0.1, 0.3, 0.5)):
        mask = np.zeros(grid.num_tokens)
        mask[order[:num_kept]] = 1
        per_step = mask.reshape(grid.shape).sum(axis=(1, 2))
        assert per_step.max() - per_step.min() <= 3


def frame_difference_reference(clip: np.ndarray, grid: TokenGrid) -> np.ndarray:
    """The definition, in loops, for grids that divide the clip."""
    _, num_frames, height, width = clip.shape
    frames, rows, columns = num_frames // grid.t, height // grid.h, width // grid.w
    out = np.zeros(grid.shape)
    for t in range(grid.t):
        for h in range(grid.h):
            for w in range(grid.w):
                total = 0.0
                for f in range(t * frames, (t + 1) * frames):
                    g = min(f, num_frames - 2)
                    cell = np.s_[:, h * rows : (h + 1) * rows, w * columns : (w + 1) * columns]
                    total += np.abs(clip[:, g + 1][cell] - clip[:, g][cell]).mean()
                out[t, h, w] = total / frames
    return out


@pytest.mark.parametrize("grid", [TokenGrid(8, 4, 4), TokenGrid(16, 2, 3), TokenGrid(4, 8, 12)])
def test_frame_difference_equals_its_definition(grid: TokenGrid) -> None:
    clip = make_clip(3, batch=2, shape=(16, 16, 24))
    found = create_proposal("frame_difference")(clip, grid=grid)
    for i in range(2):
        expected = frame_difference_reference(clip[i].double().numpy(), grid)
        np.testing.assert_allclose(found[i].numpy(), expected, rtol=1e-5)


def test_frame_difference_finds_what_moves() -> None:
    clip = torch.zeros(1, 3, 16, 56, 56)
    for f in range(4, 16):
        clip[0, :, f, 8:16, 2 * f : 2 * f + 4] = 2.0  # appears in frame 4, then moves right along row 2 of the grid
    scores = create_proposal("frame_difference")(clip, grid=TokenGrid(8, 7, 7))[0]
    moving = scores > 0
    assert not moving[:1].any()
    assert moving[1:, 1].any(dim=1).all()
    assert not moving[:, 2:].any()


def test_frame_difference_needs_two_frames_and_takes_any_grid() -> None:
    proposal = create_proposal("frame_difference")
    with pytest.raises(ConfigError, match="2 frames or more"):
        proposal(make_clip(0, shape=(1, 32, 32)), grid=TokenGrid(1, 2, 2))
    assert proposal(make_clip(0, shape=(13, 30, 45)), grid=GRID).shape == (1, *GRID.shape)
    half = proposal(make_clip(0).half(), grid=GRID)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, proposal(make_clip(0), grid=GRID), rtol=1e-2, atol=1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("name", CONTROLS)
def test_the_device_neither_waits_nor_changes_the_choice(name: str) -> None:
    clip = make_clip(0, batch=3)
    proposal = create_proposal(name)
    on_device = clip.cuda()
    proposal(on_device, grid=GRID)  # the first call may set kernels up
    torch.cuda.set_sync_debug_mode("error")
    try:
        scores = proposal(on_device, grid=GRID)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected, found = top(proposal(clip, grid=GRID), 470), top(scores.cpu(), 470)
    if name == "frame_difference":  # sums of floats: the last place may differ, and with it a tie
        assert np.mean([len(set(a) & set(b)) for a, b in zip(expected, found, strict=True)]) > 465
    else:
        assert np.array_equal(expected, found)
