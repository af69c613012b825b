"""Composition around the host: identity with everything kept, equivalence to masking, counts, compile, refusals."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from torch import Tensor, nn

from tests.hosts import IMAGE_HOSTS, SMALL, randomised
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.models.videomae import VideoMAE, VideoMAESpec
from vidprune.proposals.base import Proposal
from vidprune.pruners.controls import FrameDifference, Random
from vidprune.pruners.papr import PaPr
from vidprune.pruning import input_shape, prune, token_grid
from vidprune.types import TokenGrid

ensure_torchvision()
import timm  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

HOSTS = IMAGE_HOSTS | {"no_embed_class": {"no_embed_class": True}}


class MeanBrightness(Proposal):
    """A proposal without weights: pixels pooled to a coarse grid."""

    name = "mean_brightness"

    def forward(self, clip: Tensor, grid: TokenGrid | None = None) -> Tensor:
        t = max(1, clip.shape[2] // 2)
        return nn.functional.adaptive_avg_pool3d(clip.float().mean(1, keepdim=True), (t, 4, 4))[:, 0]

    def gmacs(self, clip_shape: tuple[int, int, int]) -> float:
        return 1.5


class NeverAsked(MeanBrightness):
    def forward(self, clip: Tensor, grid: TokenGrid | None = None) -> Tensor:
        raise AssertionError("the proposal ran")


def image_host(**kwargs: object) -> VisionTransformer:
    return randomised(VisionTransformer(**(SMALL | kwargs)))


def video_host(num_frames: int = 8) -> VideoMAE:
    spec = VideoMAESpec(width=32, depth=3, num_heads=4, num_frames=num_frames, image_size=64)
    return randomised(VideoMAE(spec, num_classes=7))


def host_called(name: str) -> VisionTransformer:
    return video_host() if name == "VideoMAE" else image_host(**HOSTS[name])


@pytest.mark.parametrize("name", [*HOSTS, "VideoMAE"])
def test_keep_everything_equals_the_host_bit_for_bit_and_runs_no_proposal(name: str) -> None:
    host = host_called(name)
    pixels = torch.randn(2, *input_shape(host)[1:])
    pruned = prune(host, PaPr(keep_ratio=1.0, proposal=NeverAsked()))
    with torch.no_grad():
        assert torch.equal(pruned(pixels), host(pixels))
    with torch.no_grad(), pytest.raises(AssertionError, match="the proposal ran"):
        prune(host, PaPr(keep_ratio=0.9, proposal=NeverAsked()))(pixels)


@pytest.mark.parametrize("name", [*HOSTS, "VideoMAE"])
def test_gathered_equals_masked_attention_over_all_tokens(name: str) -> None:
    """Running the kept tokens alone equals running all tokens with only the kept ones as keys, read at those places."""
    host = host_called(name)
    pixels = torch.randn(3, *input_shape(host)[1:])
    pruned = prune(host, PaPr(keep_ratio=0.4, proposal=MeanBrightness()))
    logits, trace = pruned.forward_with_trace(pixels)
    prefix = host.num_prefix_tokens
    tokens = host.norm_pre(host._pos_embed(host.patch_embed(pixels)))
    rows = torch.cat((torch.arange(prefix).expand(3, -1), trace.kept_index + prefix), 1)
    allowed = torch.zeros(3, 1, 1, tokens.shape[1], dtype=torch.bool).scatter(3, rows[:, None, None], True)
    for block in host.blocks:
        tokens = block(tokens, attn_mask=allowed.expand(-1, -1, tokens.shape[1], -1))
    kept = torch.stack([tokens[b, rows[b]] for b in range(3)])
    expected = host.forward_head(host.norm(kept))
    assert torch.allclose(logits, expected, atol=1e-5)
    assert not torch.allclose(logits, host(pixels), atol=1e-3), "pruning must change something here"


def test_counts_follow_the_papers_rounding() -> None:
    with torch.device("meta"):
        image = timm.create_model("vit_base_patch16_224")
    pruned = prune(image, PaPr(keep_ratio=0.55, proposal=MeanBrightness()))
    assert pruned.num_kept() == 108, "n counts the class token: int(197 * .55)"
    assert pruned.token_counts() == (109,) * 12
    video = prune(video_host(), PaPr(keep_ratio=0.45, proposal=MeanBrightness()))
    assert token_grid(video.host) == TokenGrid(4, 4, 4)
    assert video.num_kept() == 28


def test_trace_holds_ascending_unique_indices_in_range() -> None:
    pruned = prune(video_host(), PaPr(keep_ratio=0.3, proposal=MeanBrightness()))
    _, trace = pruned.forward_with_trace(torch.randn(4, 3, 8, 64, 64))
    assert trace.kept_index is not None
    assert trace.kept_index.shape == (4, 19)
    assert (trace.kept_index.diff(dim=1) > 0).all()
    assert 0 <= trace.kept_index.min() <= trace.kept_index.max() < 64
    assert trace.token_counts == (19, 19, 19)


def test_each_sample_is_independent_of_its_batch() -> None:
    pruned = prune(video_host(), PaPr(keep_ratio=0.3, proposal=MeanBrightness()))
    pixels = torch.randn(4, 3, 8, 64, 64)
    with torch.no_grad():
        together, alone = pruned(pixels), torch.cat([pruned(pixels[i : i + 1]) for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-5)


def test_ranking_ignores_positive_affine_maps_of_the_proposal_map() -> None:
    class Scaled(MeanBrightness):
        def forward(self, clip: Tensor, grid: TokenGrid | None = None) -> Tensor:
            return 3.0 * super().forward(clip, grid) + 0.25

    pixels = torch.randn(2, 3, 8, 64, 64)
    traces = [
        prune(video_host(), PaPr(keep_ratio=0.3, proposal=proposal)).forward_with_trace(pixels)[1]
        for proposal in (MeanBrightness(), Scaled())
    ]
    assert torch.equal(traces[0].kept_index, traces[1].kept_index)


def test_the_host_is_untouched() -> None:
    host = image_host(drop_path_rate=0.2, drop_rate=0.1).train()
    before = copy.deepcopy(host.state_dict())
    flags = [module.training for module in host.modules()]
    pruned = prune(host, PaPr(keep_ratio=0.5, proposal=MeanBrightness()))
    pruned(torch.randn(2, 3, 32, 32))
    assert type(host) is VisionTransformer
    assert [module.training for module in host.modules()] == flags
    assert len(host.blocks) == 3
    assert all(torch.equal(before[key], value) for key, value in host.state_dict().items())
    assert list(host.state_dict()) == list(before), "no pruner's parameters inside the host"


def test_gradients_reach_kept_tokens_only() -> None:
    host = video_host()
    pruned = prune(host, PaPr(keep_ratio=0.25, proposal=MeanBrightness()))
    pixels = torch.randn(1, 3, 8, 64, 64, requires_grad=True)
    logits, trace = pruned.forward_with_trace(pixels)
    logits.sum().backward()
    assert pixels.grad is not None
    tubelets = pixels.grad.view(1, 3, 4, 2, 4, 16, 4, 16).abs().amax((1, 3, 5, 7)).flatten(1)[0]  # [N]
    assert sorted(trace.kept_index[0].tolist()) == tubelets.nonzero()[:, 0].tolist()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close_and_finite(dtype: torch.dtype) -> None:
    pixels = torch.randn(2, 3, 8, 64, 64)
    pruned = prune(video_host(), PaPr(keep_ratio=0.5, proposal=MeanBrightness()))
    with torch.no_grad():
        full, kept = pruned.forward_with_trace(pixels)
        half, kept_half = copy.deepcopy(pruned).to(dtype).forward_with_trace(pixels.to(dtype))
    assert half.isfinite().all()
    overlap = [
        len(set(a.tolist()) & set(b.tolist())) for a, b in zip(kept.kept_index, kept_half.kept_index, strict=True)
    ]
    assert min(overlap) >= 30, "of 32 kept tokens, rounding may exchange only near-ties"
    assert torch.allclose(full, half.float(), atol=0.1)


def test_compiles_without_graph_breaks_once_per_keep_count() -> None:
    import torch._dynamo.testing

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    pixels = torch.randn(2, 3, 8, 64, 64)
    for keep_ratio in (0.5, 0.3):
        pruned = prune(video_host(), PaPr(keep_ratio=keep_ratio, proposal=MeanBrightness()))
        compiled = torch.compile(pruned, fullgraph=True, backend=counter, dynamic=False)
        with torch.no_grad():
            for _ in range(3):
                compiled_logits = compiled(pixels)
            assert torch.allclose(compiled_logits, pruned(pixels), atol=1e-6)
    assert counter.frame_count == 2


def test_one_model_runs_in_two_threads() -> None:
    pruned = prune(video_host(), PaPr(keep_ratio=0.3, proposal=MeanBrightness()))
    inputs = [torch.randn(2, 3, 8, 64, 64) for _ in range(2)]
    with torch.no_grad():
        expected = [pruned(x) for x in inputs]
    results: dict[int, list[Tensor]] = {0: [], 1: []}

    def work(i: int) -> None:
        with torch.no_grad():
            results[i] = [pruned(inputs[i]) for _ in range(10)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert len(results[i]) == 10
        assert all(torch.allclose(result, expected[i], atol=1e-6) for result in results[i])


@pytest.mark.parametrize("config", [Random(0.3, seed=1), FrameDifference(0.3)])
def test_controls_run_on_tubelets(config: object) -> None:
    logits, trace = prune(video_host(), config).forward_with_trace(torch.randn(2, 3, 8, 64, 64))
    assert logits.shape == (2, 7)
    assert trace.kept_index.shape == (2, 19)


def test_a_host_that_does_more_in_its_forward_is_refused() -> None:
    class Scaled(VisionTransformer):
        def forward_features(self, x: Tensor, *args: object, **kwargs: object) -> Tensor:
            return 2.0 * super().forward_features(x, *args, **kwargs)

    with pytest.raises(UnsupportedModelError, match="does more in its forward"):
        prune(Scaled(**SMALL), PaPr(keep_ratio=0.5, proposal=MeanBrightness()))


def test_refusals_name_what_was_got() -> None:
    with pytest.raises(UnsupportedModelError, match="got Linear"):
        prune(nn.Linear(2, 2), PaPr(keep_ratio=0.5))
    pruned = prune(video_host(), Random(0.5))
    with pytest.raises(UnsupportedModelError, match="already pruned"):
        prune(pruned, Random(0.5))
    with pytest.raises(ConfigError, match="method must be a config"):
        prune(video_host(), ["papr"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="keep_ratio"):
        PaPr(keep_ratio=float("nan"))
    with pytest.raises(ConfigError, match="already an object"):
        prune(video_host(), PaPr(keep_ratio=0.5, proposal=MeanBrightness(), proposal_checkpoint="x.pth"))
    with pytest.raises(ConfigError, match="takes clips"):
        pruned(torch.randn(1, 3, 16, 64, 64))
