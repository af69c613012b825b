"""Image models on clips: against loops over frames, and selections by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.hosts import SMALL, make_host, randomised
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.inference import plan_for, run_views
from vidprune.models import create_model
from vidprune.models.frame_batch import FrameBatch
from vidprune.models.frame_names import parse_frames_name
from vidprune.profiling.flops import flops
from vidprune.profiling.model_speed import measure_models
from vidprune.proposals.base import ClipShape, Proposal
from vidprune.pruners.base import Pruner
from vidprune.pruners.controls import Centre, FrameDifference, Norm, Random, Uniform
from vidprune.pruners.evit import EViT
from vidprune.pruners.papr import PaPr
from vidprune.pruners.shared_budget import share
from vidprune.pruners.tome import ToMe
from vidprune.pruning import PrunedViT, host_of, is_pruned, prune, token_grid
from vidprune.types import TokenGrid

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)

T, N = 4, 16  # frames per clip; tokens per frame of the small hosts


def clips(batch: int = 2, frames: int = T, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, frames, 32, 32, generator=torch.Generator().manual_seed(seed))


class GivenMap(Proposal):
    """Marks what it is told to, and counts how often it is asked."""

    name = "given"

    def __init__(self, answer: Tensor) -> None:
        super().__init__()
        self.answer, self.seen = answer, []

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        self.seen.append((clip, grid))
        return self.answer[: len(clip)]

    def gmacs(self, clip_shape: ClipShape) -> float:
        return 0.5 * clip_shape[0]


def noise(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("host_name", ["class token", "no class token", "dynamic size"])
@pytest.mark.parametrize("average", ["logits", "probs"])
def test_a_dense_batch_is_the_mean_over_a_loop(host_name: str, average: str) -> None:
    host, pixels = make_host(host_name), clips()
    with torch.no_grad():
        host.head.weight *= 20  # logits far enough apart for the two means to differ
    batch = FrameBatch(host, T, average=average)
    with torch.no_grad():
        logits = batch(pixels)
        loop = torch.stack([host(pixels[:, :, t]) for t in range(T)])  # [T, B, classes]
    if average == "logits":
        assert torch.allclose(logits, loop.mean(0), atol=1e-4)
    else:
        assert torch.allclose(logits.softmax(1), loop.softmax(-1).mean(0), atol=1e-6)
        assert not torch.allclose(logits.softmax(1), loop.mean(0).softmax(-1), atol=1e-3)
    assert batch.token_grid == token_grid(batch) == TokenGrid(T, 4, 4)
    assert host_of(batch) is host
    assert not is_pruned(batch)


def test_one_frame_is_the_image_model() -> None:
    host, pixels = make_host("class token"), clips(frames=1)
    with torch.no_grad():
        assert torch.equal(FrameBatch(host, 1)(pixels), host(pixels[:, :, 0]))


def test_frames_are_normalised_as_the_image_model_was_trained() -> None:
    host, pixels = make_host("class token"), clips()
    host.pretrained_cfg = {"mean": (0.5, 0.4, 0.3), "std": (0.5, 0.25, 0.2)}
    batch = FrameBatch(host, T)
    in_0_1 = pixels * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1, 1)
    in_0_1 += torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1, 1)
    own = (in_0_1 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1, 1)) / torch.tensor([0.5, 0.25, 0.2]).view(3, 1, 1, 1)
    with torch.no_grad():
        loop = torch.stack([host(own[:, :, t]) for t in range(T)]).mean(0)
        assert torch.allclose(batch(pixels), loop, atol=1e-5)
    asked = GivenMap(noise(2, T, 4, 4))
    prune(batch, PaPr(0.5, proposal=asked))(pixels)
    assert torch.equal(asked.seen[0][0], pixels), "a proposal sees the clip as it came"


PER_FRAME = {
    "norm": Norm(0.5),
    "evit": EViT(0.6),
    "tome": ToMe(3),
    "norm, then tome": [Norm(0.6), ToMe(2, start_block=1)],
}


@pytest.mark.parametrize("method", PER_FRAME.values(), ids=PER_FRAME.keys())
def test_a_budget_per_frame_is_a_loop_over_frames(method: Pruner | list[Pruner]) -> None:
    """For methods that look at one frame: the same tokens, the same logits as the pruned image model."""
    host, pixels = make_host("class token"), clips()
    image = prune(host, method)
    batch = prune(FrameBatch(host, T), method)
    other_way = FrameBatch(prune(host, method), T)
    with torch.no_grad():
        logits, trace = batch.forward_with_trace(pixels)
        assert torch.equal(batch(pixels), logits)
        assert torch.equal(other_way(pixels), logits)
        loop = [image.forward_with_trace(pixels[:, :, t]) for t in range(T)]
    assert torch.allclose(logits, torch.stack([one for one, _ in loop]).mean(0), atol=1e-5)
    assert trace.grid == TokenGrid(T, 4, 4)
    for b in range(2):
        expected = [t * N + int(place) for t, (_, one) in enumerate(loop) for place in one.kept_index[b]]
        assert trace.kept_index[b].tolist() == expected
        for t, (_, one) in enumerate(loop):
            rows, in_frame = trace.assignment[b, t * N : (t + 1) * N], one.assignment[b]
            kept = one.kept_index.shape[1]
            assert torch.equal(rows, torch.where(in_frame < 0, -1, in_frame + t * kept))
    assert trace.token_counts == tuple(T * count for count in image.token_counts())
    assert batch.num_kept() == T * image.num_kept()
    assert batch.num_final() == T * image.num_final() == trace.kept_index.shape[1]
    assert is_pruned(batch)


def by_hand(scores: np.ndarray, total: int) -> list[int]:
    """Places [T * N] of one clip's scores [T, N]: each frame's best, then the best of all others."""
    chosen = {t * N + int(row.argmax()) for t, row in enumerate(scores)}
    for place in np.argsort(-scores.ravel(), kind="stable"):
        if len(chosen) < total:
            chosen.add(int(place))
    return sorted(chosen)


@pytest.mark.parametrize(("host_name", "prefix"), [("class token", 1), ("no class token", 0), ("registers", 5)])
@pytest.mark.parametrize("keep_ratio", [0.2, 0.4, 0.7])
def test_a_budget_shared_over_a_clip(host_name: str, prefix: int, keep_ratio: float) -> None:
    """Selection by hand, and each frame alone on the tokens it was left with."""
    host, pixels = make_host(host_name), clips(3)
    scores = noise(3, T, 4, 4) + torch.tensor([0.0, 3.0, -3.0, 1.0]).view(1, T, 1, 1)  # busy frames and quiet ones
    batch = prune(FrameBatch(host, T, budget="clip"), PaPr(keep_ratio, proposal=GivenMap(scores)))
    total = T * int((N + prefix) * keep_ratio + 1e-9)
    with torch.no_grad():
        logits, trace = batch.forward_with_trace(pixels)
        assert torch.equal(batch(pixels), logits)
    assert trace.kept_index.shape == (3, total)
    assert batch.num_kept() == batch.num_final() == total
    for b in range(3):
        expected = by_hand(scores[b].flatten(1).numpy(), total)
        assert trace.kept_index[b].tolist() == expected
        frames = [[place - t * N for place in expected if place // N == t] for t in range(T)]
        assert min(map(len, frames)) >= 1
        row = torch.full((T * N,), -1)
        row[expected] = torch.arange(total)
        assert torch.equal(trace.assignment[b], row)
        with torch.no_grad():
            alone = [tokens_alone(host, pixels[b : b + 1, :, t], frame) for t, frame in enumerate(frames)]
        assert torch.allclose(logits[b], torch.stack(alone).mean(0), atol=1e-4)
    counts = np.bincount(trace.kept_index[0].numpy() // N, minlength=T)
    assert counts[1] > counts[2], "the busy frame keeps no more than the quiet one"


def tokens_alone(host: VisionTransformer, image: Tensor, kept: list[int]) -> Tensor:
    """Logits [classes] of one image [1, 3, H, W] of which only the tokens `kept` are there."""
    tokens = host.norm_pre(host._pos_embed(host.patch_embed(image)))
    prefix = host.num_prefix_tokens
    tokens = torch.cat([tokens[:, :prefix], tokens[:, prefix:][:, kept]], dim=1)
    return host.forward_head(host.norm(host.blocks(tokens)))[0]


def test_a_shared_budget_runs_every_method_that_ranks_tokens_once() -> None:
    host, pixels = make_host("class token"), clips()
    for method in (Random(0.5), Uniform(0.5), Centre(0.5), Norm(0.5), FrameDifference(0.5)):
        batch = prune(FrameBatch(host, T, budget="clip"), method)
        with torch.no_grad():
            logits, trace = batch.forward_with_trace(pixels)
            alone = torch.cat([batch(pixels[b : b + 1]) for b in range(2)])
        assert trace.kept_index.shape == (2, 32)
        assert torch.allclose(logits, alone, atol=1e-5), "a clip depends on its batch"
    chain = prune(FrameBatch(host, T, budget="clip"), [Random(0.8), ToMe(2, start_block=1)])
    with torch.no_grad():
        logits, trace = chain.forward_with_trace(pixels)
    assert logits.shape == (2, 7)
    assert chain.num_kept() == 4 * 13
    sizes = trace.sizes.where(trace.kept_index >= 0, 0)
    assert sizes.sum(dim=1).tolist() == [4 * 13] * 2, "every token that was kept is in a merged one"


def test_sharing_by_brute_force_with_ties_and_not_a_number() -> None:
    generator = torch.Generator().manual_seed(0)
    for total, _ in itertools.product((3, 4, 7, 14, 15), range(5)):
        scores = torch.randint(0, 3, (6, 5), generator=generator).float()  # 2 clips of 3 frames, many ties
        keep = share(scores, 3, total).view(2, 15)
        for clip, kept in zip(scores.view(2, 3, 5), keep, strict=True):
            chosen = {5 * t + int(row.argmax()) for t, row in enumerate(clip)}
            rest = [place for place in np.argsort(-clip.numpy().ravel(), kind="stable") if place not in chosen]
            assert kept.nonzero()[:, 0].tolist() == sorted(chosen | set(rest[: total - 3]))
    broken = torch.full((2, 4), float("nan"))
    broken[1, 2] = 1.0
    assert share(broken, 2, 3).sum(dim=1).min() >= 1


def test_keeping_everything_is_the_dense_batch() -> None:
    host, pixels = make_host("class token"), clips()
    for budget in ("frame", "clip"):
        dense = FrameBatch(host, T, budget=budget)
        asked = GivenMap(noise(2, T, 4, 4))
        with torch.no_grad():
            assert torch.equal(prune(dense, PaPr(1.0, proposal=asked))(pixels), dense(pixels))
        assert not asked.seen


def test_a_video_networks_map_is_cut_into_frames() -> None:
    """Half as many time steps as frames: linear between them; in space, bicubic as for images."""
    host = make_host("class token")
    found = noise(2, 2, 3, 3)
    asked = GivenMap(found)
    batch = prune(FrameBatch(host, T), PaPr(0.5, proposal=asked))
    with torch.no_grad():
        logits, trace = batch.forward_with_trace(clips())
        given, _ = batch.forward_with_trace(clips(), proposal_map=found)
    assert len(asked.seen) == 1
    assert asked.seen[0][1] == TokenGrid(T, 4, 4)
    assert torch.equal(logits, given)
    assert torch.equal(trace.proposal_map, found)
    for b in range(2):
        for t in range(T):
            weight = t / (T - 1)  # corners aligned
            at_t = (1 - weight) * found[b, 0] + weight * found[b, 1]
            scores = F.interpolate(at_t[None, None], size=(4, 4), mode="bicubic", align_corners=True).flatten()
            best = np.sort(np.argsort(-scores.numpy(), kind="stable")[:8]) + t * N
            assert trace.kept_index[b, 8 * t : 8 * t + 8].tolist() == best.tolist()


def test_a_host_of_dynamic_size_asks_on_the_grid_of_its_input() -> None:
    batch = prune(FrameBatch(make_host("dynamic size"), T), FrameDifference(0.5))
    pixels = torch.nn.functional.interpolate(clips(), size=(T, 48, 64))  # 6 x 8 patches of 8 pixels
    with torch.no_grad():
        _, trace = batch.forward_with_trace(pixels)
    assert trace.grid == TokenGrid(T, 6, 8)
    assert trace.proposal_map.shape == (2, T, 6, 8)
    assert trace.kept_index.shape == (2, T * int(49 * 0.5))


def test_the_main_path_takes_it() -> None:
    batch = prune(FrameBatch(make_host("class token"), T), Centre(0.5))
    plan = plan_for(batch, num_segments=2, num_crops=1)
    assert (plan.num_frames, plan.short_side, plan.crop_size) == (T, 32, 32)
    logits, trace = run_views(batch, clips())
    assert (logits.shape, trace.kept_index.shape) == ((2, 7), (2, 32))
    dense, nothing = run_views(FrameBatch(batch.host, T), clips())
    assert (dense.shape, nothing) == ((2, 7), None)


def test_a_clip_costs_its_frames_and_one_proposal() -> None:
    host, method = make_host("class token"), PaPr(0.5, proposal=GivenMap(noise(1, 1, 4, 4)))
    image, batch = flops(prune(host, method)), flops(prune(FrameBatch(host, T), method))
    assert batch.vit_gmacs == pytest.approx(T * image.vit_gmacs)
    assert batch.dense_gmacs == pytest.approx(T * image.dense_gmacs)
    assert (image.proposal_gmacs, batch.proposal_gmacs) == (0.5, 2.0)


@pytest.mark.parametrize(
    ("name", "image_model", "settings"),
    [
        ("frames/vit_tiny_patch16_224", "timm/vit_tiny_patch16_224", {}),
        ("frames:16/timm/vit", "timm/vit", {"frames_per_clip": 16}),
        ("frames:clip:4:probs/vit", "timm/vit", {"budget": "clip", "frames_per_clip": 4, "average": "probs"}),
    ],
)
def test_names(name: str, image_model: str, settings: dict[str, object]) -> None:
    parsed = parse_frames_name(name)
    assert (parsed.image_model, parsed.settings) == (image_model, settings)


def test_a_model_by_name() -> None:
    batch = create_model("frames:2/vit_tiny_patch16_224", num_classes=5, depth=1)
    assert (batch.frames_per_clip, batch.num_classes, batch.input_size) == (2, 5, (2, 224, 224))
    assert not batch.training
    assert parse_frames_name("timm/frames") is parse_frames_name("framesome/vit") is None


def test_errors() -> None:
    host = make_host("class token")
    batch = FrameBatch(host, T)
    with pytest.raises(ConfigError, match=r"takes clips \[B, 3, 4, 32, 32\], got \[2, 3, 5, 32, 32\]"):
        batch(clips(frames=5))
    with pytest.raises(ConfigError, match=r"got \[2, 3, 32, 32\]; an image is a clip with T = 1"):
        batch(clips()[:, :, 0])
    for wrong in (0, -1, 2.5, True):
        with pytest.raises(ConfigError, match="frames_per_clip must be a whole number of at least 1"):
            FrameBatch(host, wrong)
    with pytest.raises(ConfigError, match="average must be one of logits, probs, got 'mean'"):
        FrameBatch(host, average="mean")
    with pytest.raises(ConfigError, match="budget must be one of frame, clip, got 'video'"):
        FrameBatch(host, budget="video")
    with pytest.raises(UnsupportedModelError, match="VideoMAE takes clips already"):
        FrameBatch(make_host("VideoMAE"))
    with pytest.raises(UnsupportedModelError, match="Linear is not one"):
        FrameBatch(torch.nn.Linear(2, 2))
    with pytest.raises(UnsupportedModelError, match="nothing is pruned here"):
        batch.forward_with_trace(clips())
    with pytest.raises(ConfigError, match=r"needs a method that ranks all tokens before the first block.*got tome"):
        prune(FrameBatch(host, T, budget="clip"), ToMe(2))
    with pytest.raises(ConfigError, match="a budget is shared by pruning the frame batch"):
        FrameBatch(prune(host, Centre(0.5)), T, budget="clip")
    with pytest.raises(
        ConfigError, match=r"takes inputs \[B, 3, 32, 32\], got \[2, 3, 4, 32, 32\]; an image model .*FrameBatch"
    ):
        prune(host, Centre(0.5))(clips())
    with pytest.raises(ConfigError, match=r"takes inputs \[B, 3, 8, 64, 64\], got \[2, 3, 32, 32\]$"):
        prune(make_host("VideoMAE"), Centre(0.5))(clips()[:, :, 0])
    with pytest.raises(UnsupportedModelError, match="already pruned"):
        prune(prune(batch, Centre(0.5)), Centre(0.5))
    with pytest.raises(UnsupportedModelError, match=r"FrameBatch.*frames/vit_base_patch16_224"):
        plan_for(host)
    with pytest.raises(ConfigError, match="setting 'odd' is not known"):
        create_model("frames:odd/vit_tiny_patch16_224")
    with pytest.raises(ConfigError, match="'8' sets frames_per_clip again"):
        create_model("frames:4:8/vit_tiny_patch16_224")


def test_in_half_precision_on_its_device() -> None:
    batch = FrameBatch(randomised(VisionTransformer(**SMALL)), T)
    batch.host.pretrained_cfg = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
    batch = prune(FrameBatch(batch.host, T), Centre(0.5))
    assert isinstance(batch.model, PrunedViT)
    with torch.no_grad():
        full = batch(clips())
        half = batch.to(torch.bfloat16)(clips().bfloat16())
    assert half.dtype == torch.bfloat16
    assert (half.float() - full).abs().max() < 0.1 * full.abs().max()


def test_its_speed_is_measured_on_clips() -> None:
    host = make_host("class token")
    models = {"dense": FrameBatch(host, T), "papr": prune(FrameBatch(host, T), FrameDifference(0.5))}
    dense, pruned = measure_models(models, batch=2, rounds=1)
    assert dense.proposal_ms == 0 < pruned.proposal_ms
    assert dense.gmacs == pytest.approx(flops(models["dense"]).total_gmacs)
