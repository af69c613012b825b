"""ConvNeXt and Swin on kept pixels alone, against their own dense blocks with the branch multiplied by the mask."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.hosts import make_host
from tests.stage_hosts import CONVNEXT, STAGE_HOSTS, make_stage_host
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.hierarchical import PrunedHierarchical
from vidprune.proposals.base import Proposal
from vidprune.pruners.base import Pruner
from vidprune.pruners.controls import Centre, FrameDifference, Norm, Random, Uniform
from vidprune.pruners.papr import PaPr
from vidprune.pruners.tome import ToMe
from vidprune.pruning import prune

ensure_torchvision()
from timm.models.convnext import ConvNeXt  # noqa: E402

each_host = pytest.mark.parametrize("name", STAGE_HOSTS)
few_hosts = pytest.mark.parametrize("name", ["ConvNeXt", "ConvNeXt V2", "Swin", "Swin V2"])


class Bright(Proposal):
    """The mean over channels of each eighth of the image: a map of 8 x 8 that differs from image to image."""

    name = "bright"

    def forward(self, clip: Tensor, *, grid: object = None) -> Tensor:
        return F.adaptive_avg_pool3d(clip.mean(dim=1), (1, 8, 8)).float()

    def gmacs(self, clip_shape: tuple[int, int, int]) -> float:
        return 0.25


def images(batch: int = 2, side: int = 64) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def pruned_host(name: str, keep_ratio: float = 0.4, **options: object) -> PrunedHierarchical:
    return prune(make_stage_host(name), PaPr(keep_ratio, proposal=Bright(), **options))


def mask_by_hand(pixels: Tensor, side: int, keep_ratio: float) -> Tensor:
    """1 where a pixel of the grid `side` x `side` is kept, [B, 1, side, side], one at a time."""
    scores = F.interpolate(Bright()(pixels.unsqueeze(2)), size=(side, side), mode="bicubic", align_corners=True)
    mask = torch.zeros(len(pixels), side * side)
    for image, row in enumerate(scores.flatten(1)):
        best = sorted(range(side * side), key=lambda place: -float(row[place]))[: int(keep_ratio * side * side)]
        mask[image, best] = 1
    return mask.view(-1, 1, side, side)


def masked_grn(x: Tensor, grn: nn.Module, mask: Tensor) -> Tensor:
    """Global response norm with its statistics from the kept pixels; x and mask [B, H, W, C]."""
    energy = (x * mask).square().sum(dim=(1, 2), keepdim=True).sqrt()
    return x + grn.weight * x * energy / (energy.mean(dim=-1, keepdim=True) + grn.eps) + grn.bias


def dense_convnext(host: nn.Module, pixels: Tensor, keep_ratio: float, keep_shortcut: bool = False) -> Tensor:
    x = host.stem(pixels)
    for stage in host.stages:
        x = stage.downsample(x)
        mask = mask_by_hand(pixels, x.shape[-1], keep_ratio)
        for block in stage.blocks:
            y = block.conv_dw(x)
            if block.use_conv_mlp:
                y = block.norm(y).permute(0, 2, 3, 1)
                weights = [(fc.weight.flatten(1), fc.bias) for fc in (block.mlp.fc1, block.mlp.fc2)]
            else:
                y = block.norm(y.permute(0, 2, 3, 1))
                weights = [(fc.weight, fc.bias) for fc in (block.mlp.fc1, block.mlp.fc2)]
            y = F.gelu(F.linear(y, *weights[0]))
            if hasattr(block.mlp, "grn"):
                y = masked_grn(y, block.mlp.grn, mask.permute(0, 2, 3, 1))
            y = F.linear(y, *weights[1]).permute(0, 3, 1, 2)
            if block.gamma is not None:
                y = y * block.gamma.view(1, -1, 1, 1)
            x = x + y * mask if keep_shortcut else (x + y) * mask
    return host.forward_head(host.norm_pre(x))


def dense_swin(host: nn.Module, pixels: Tensor, keep_ratio: float) -> Tensor:
    x = host.patch_embed(pixels)
    for stage in host.layers:
        x = stage.downsample(x)
        mask = mask_by_hand(pixels, x.shape[1], keep_ratio).permute(0, 2, 3, 1)
        for block in stage.blocks:
            without_mlp = copy.deepcopy(block)
            without_mlp.drop_path2 = Zero()  # the block's own forward, up to the residual of its attention
            attended = without_mlp(x)
            x = attended + (block(x) - attended) * mask
    return host.forward_head(host.norm(x))


class Zero(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


@each_host
def test_gathered_equals_dense_with_the_branch_masked(name: str) -> None:
    pruned = pruned_host(name)
    pixels = images()
    dense = dense_convnext if "ConvNeXt" in name else dense_swin
    with torch.no_grad():
        logits, expected = pruned(pixels), dense(pruned.host, pixels, 0.4)
        assert (expected - pruned.host(pixels)).abs().max() > 1e-2, "the mask changes nothing"
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=2e-5)


def test_keep_shortcut_drops_the_branch_alone() -> None:
    pruned = pruned_host("ConvNeXt", keep_shortcut=True)
    with torch.no_grad():
        expected = dense_convnext(pruned.host, images(), 0.4, keep_shortcut=True)
        torch.testing.assert_close(pruned(images()), expected, atol=2e-5, rtol=2e-5)
        assert (pruned_host("ConvNeXt")(images()) - expected).abs().max() > 1e-2


@each_host
def test_keep_everything_equals_the_host_bit_for_bit(name: str) -> None:
    pruned = pruned_host(name, 1.0)
    with torch.no_grad():
        logits, trace = pruned.forward_with_trace(images())
        assert torch.equal(logits, pruned.host(images()))
    assert set(trace.kept_index) == {None}
    assert pruned.proposal is None


@few_hosts
def test_counts_known_before_are_the_pixels_that_run(name: str) -> None:
    pruned = pruned_host(name, 0.65)
    assert [grid.shape for grid in pruned.grids][-1] == pruned.token_grid.shape
    # A ConvNeXt without a configuration counts at 224 pixels.
    sides = (56, 28, 14, 7) if "ConvNeXt" in name else (16, 8, 4)
    assert pruned.kept_pixels() == tuple(int(0.65 * side**2) for side in sides)
    seen: list[int] = []
    for stage in pruned.stages:
        for block in stage.blocks:
            block.mlp.fc1.register_forward_pre_hook(lambda _, args: seen.append(args[0].numel() // args[0].shape[-1]))
    size = 224 if "ConvNeXt" in name else 64
    with torch.no_grad():
        _, trace = pruned.forward_with_trace(images(1, size))
    assert seen == [
        count for count, stage in zip(pruned.kept_pixels(), pruned.stages, strict=True) for _ in stage.blocks
    ]
    assert [index.shape for index in trace.kept_index] == [(1, count) for count in pruned.kept_pixels()]
    assert trace.grids == pruned.grids
    assert all((index.diff(dim=1) > 0).all() for index in trace.kept_index)


def test_an_image_of_another_size_keeps_its_share() -> None:
    pruned = pruned_host("ConvNeXt", 0.5)
    with torch.no_grad():
        _, trace = pruned.forward_with_trace(images(1, 96))
    assert [grid.shape for grid in trace.grids] == [(1, 24, 24), (1, 12, 12), (1, 6, 6), (1, 3, 3)]
    assert [index.shape[1] for index in trace.kept_index] == [288, 72, 18, 4]


@few_hosts
def test_stages_that_are_not_named_run_whole(name: str) -> None:
    pruned = pruned_host(name, stages=[1])
    called: list[str] = []
    pruned.stages[0].register_forward_hook(lambda *_: called.append("stage 0"))
    with torch.no_grad():
        logits, trace = pruned.forward_with_trace(images())
    assert called == ["stage 0"]
    assert [index is None for index in trace.kept_index] == [number != 1 for number in range(len(pruned.stages))]
    assert trace.kept_index[1].shape[1] == int(0.4 * 8 * 8)
    assert pruned.kept_pixels()[0] == pruned.grids[0].num_tokens
    assert (logits - pruned_host(name)(images())).abs().max() > 1e-3


@few_hosts
def test_each_image_is_independent_of_its_batch(name: str) -> None:
    pruned = pruned_host(name)
    pixels = images(4)
    with torch.no_grad():
        alone = torch.cat([pruned(pixels[i : i + 1]) for i in range(4)])
        torch.testing.assert_close(pruned(pixels), alone, atol=1e-5, rtol=1e-5)


@few_hosts
@pytest.mark.parametrize("method", [Random(0.4), Uniform(0.4), Centre(0.4), Random(0.4, stages=[0, 1])])
def test_controls_run_too(name: str, method: Pruner) -> None:
    pruned = prune(make_stage_host(name), method)
    with torch.no_grad():
        logits, trace = pruned.forward_with_trace(images())
    assert logits.isfinite().all()
    assert trace.proposal_map.shape == (2, *pruned.token_grid.shape)


@few_hosts
def test_a_given_map_takes_the_proposals_place(name: str) -> None:
    pruned = pruned_host(name)
    pixels = images()
    given = Bright()(pixels.unsqueeze(2))
    with torch.no_grad():
        assert torch.equal(pruned(pixels, given), pruned(pixels))
        assert not torch.equal(pruned(pixels, -given), pruned(pixels))
    with pytest.raises(ConfigError, match="proposal_map"):
        pruned(pixels, given[:1])
    with pytest.raises(ConfigError, match="asks no proposal"):
        pruned_host(name, 1.0)(pixels, given)


@few_hosts
def test_gradients_reach_every_weight_and_the_host_is_untouched(name: str) -> None:
    pruned = pruned_host(name)
    before = copy.deepcopy(pruned.host.state_dict())
    pruned(images()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in pruned.host.parameters())
    assert all(torch.equal(before[key], value) for key, value in pruned.host.state_dict().items())
    assert not pruned.training


@few_hosts
def test_half_precision_is_finite(name: str) -> None:
    pruned = pruned_host(name).to(torch.bfloat16)
    with torch.no_grad():
        logits = pruned(images().to(torch.bfloat16))
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


def test_compiles_without_graph_breaks() -> None:
    import torch._dynamo.testing

    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounter()
    pruned = pruned_host("ConvNeXt", stages=[1])
    pixels = images(2, 224)
    compiled = torch.compile(pruned, fullgraph=True, backend=counter, dynamic=False)
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixels), pruned(pixels), atol=1e-5, rtol=1e-5)
    assert counter.frame_count == 1


class OtherBlocks(ConvNeXt):
    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward_features(x) + 1


def test_what_cannot_run_is_refused_in_one_line() -> None:
    convnext, swin = make_stage_host("ConvNeXt"), make_stage_host("Swin")
    for host, method in ((convnext, ToMe(2)), (swin, Norm(0.5)), (swin, FrameDifference(0.5))):
        with pytest.raises(ConfigError, match=f"{method.name} cannot run on a .*papr, random, uniform and centre"):
            prune(host, method)
    with pytest.raises(ConfigError, match="takes one method"):
        prune(convnext, [Random(0.5), ToMe(2)])
    with pytest.raises(ConfigError, match="stages names stage 3, this host has stages 0 to 2"):
        prune(swin, Random(0.5, stages=(1, 3)))
    with pytest.raises(ConfigError, match="ascending stage numbers"):
        Random(0.5, stages=(2, 1))
    with pytest.raises(ConfigError, match="keep_shortcut is an option on ConvNeXt"):
        prune(swin, Random(0.5, keep_shortcut=True))
    with pytest.raises(ConfigError, match="a ViT has no stages"):
        prune(make_host("class token"), Random(0.5, stages=(0,)))
    with pytest.raises(UnsupportedModelError, match="already pruned"):
        prune(prune(convnext, Random(0.5)), Random(0.5))
    with pytest.raises(UnsupportedModelError, match="OtherBlocks is not timm's ConvNeXt or changes its forward"):
        prune(OtherBlocks(**CONVNEXT), Random(0.5))


def test_a_block_that_computes_more_is_found() -> None:
    host = make_stage_host("Swin")
    block = host.layers[1].blocks[-1]
    block.register_forward_hook(lambda module, args, output: output * 1.01)
    with pytest.raises(UnsupportedModelError, match="computes more than its parts say"):
        prune(host, Random(0.5))
