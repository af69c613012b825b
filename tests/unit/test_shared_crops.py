"""One pass over the whole frame gives each crop the map that it would have had, where a network allows that at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tests.hosts import make_host
from vidprune.errors import ConfigError
from vidprune.inference import plan_for, predict_views
from vidprune.proposals import create_proposal
from vidprune.proposals.nets3d import KINETICS, NetProposal, NetSpec
from vidprune.proposals.shared_crops import SharedCrops
from vidprune.pruners.papr import PaPr
from vidprune.pruning import prune
from vidprune.types import TokenGrid, VideoFrames
from vidprune.video import ViewPlan, cut_views

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}
GRID = TokenGrid(4, 8, 8)
NORM = {"pytorchvideo": KINETICS}


def pooling(stride: int = 8, release: tuple[int, int, int] | None = None) -> NetProposal:
    """A "network" that sees nothing beyond a cell: there the two ways must agree exactly."""
    spec = NetSpec("pool", lambda: nn.AvgPool3d((2, stride, stride)), lambda s: release or s, NORM, stride)
    return NetProposal(spec)


def a_video(plan: ViewPlan, height: int, width: int, *, ramp: bool = False) -> VideoFrames:
    frames = np.random.default_rng(0).integers(0, 256, (40, height, width, 3), dtype=np.uint8)
    if ramp:
        frames[:] = (np.arange(width)[:, None] + np.arange(height)[:, None, None]).astype(np.uint8)
    numbers = plan.wanted_frames(40)
    return VideoFrames(
        frames[numbers], numbers, 40, 0, 0, np.zeros(len(numbers), bool), 25.0, (height, width), "made up"
    )


def per_view(net: NetProposal, video: VideoFrames, plan: ViewPlan) -> torch.Tensor:
    return net(cut_views(video, plan))


@pytest.mark.parametrize("size", [(64, 96), (96, 64), (64, 64)])
@pytest.mark.parametrize("num_crops", [1, 3])
def test_whole_cells_apart_the_maps_are_the_views_own(size: tuple[int, int], num_crops: int) -> None:
    plan = ViewPlan(8, 2, 2, num_crops, 64, 64)  # crops of 96 start at 0, 16 and 32: whole cells
    video, net = a_video(plan, *size), pooling()
    found = SharedCrops(net).view_maps(video, plan, grid=GRID, **CPU)
    expected = per_view(net, video, plan)
    assert found.shape == expected.shape == (2 * num_crops, 4, 8, 8)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_parts_of_cells_are_read_in_between() -> None:
    """On a ramp, in between is exactly right: the offset of crop 1 is 5 pixels, 0.625 of a cell."""
    plan = ViewPlan(8, 2, 1, 3, 64, 64)
    video, net = a_video(plan, 64, 74, ramp=True), pooling()
    assert plan.crop_offsets(64, 74) == [(0, 0), (0, 5), (0, 10)]
    found, expected = SharedCrops(net).view_maps(video, plan, grid=GRID, **CPU), per_view(net, video, plan)
    # The frame's last cell would begin at 72 and is not whole, so that pooling leaves it out: compare the others.
    torch.testing.assert_close(found[:2, ..., :-1], expected[:2, ..., :-1], rtol=1e-4, atol=1e-4)


def test_the_frame_goes_in_at_the_scale_of_a_crop() -> None:
    plan = ViewPlan(8, 2, 2, 3, 64, 64)
    net = pooling(release=(4, 32, 32))
    sizes = []
    inner = net.map_at
    net.map_at = lambda clip, size: sizes.append((tuple(clip.shape), size)) or inner(clip, size)  # type: ignore
    maps = SharedCrops(net).view_maps(a_video(plan, 64, 96), plan, grid=GRID, **CPU)
    assert sizes == [((2, 3, 8, 64, 96), (4, 32, 48))], "one pass for all segments and crops"
    assert maps.shape == (6, 2, 4, 4)


def test_a_network_s_maps_are_close_to_the_views_own() -> None:
    plan = ViewPlan(4, 2, 1, 3, 128, 128)
    net = create_proposal("x3d_tiny", input_treatment="native")
    video = a_video(plan, 128, 192)
    found = SharedCrops(net).view_maps(video, plan, grid=GRID, **CPU)
    expected = per_view(net, video, plan)  # type: ignore[arg-type]
    assert found.shape == expected.shape
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))  # at the borders a view sees zeros
    assert float(torch.corrcoef(torch.stack([found[inner].flatten(), expected[inner].flatten()]))[0, 1]) > 0.5


def test_papr_asks_it_once_per_video_and_falls_back_on_clips() -> None:
    host = make_host("VideoMAE")
    shared, plain = (
        prune(host, PaPr(0.5, proposal="x3d_tiny", input_treatment="native", shared_crops=s)) for s in (True, False)
    )
    plan = plan_for(shared, num_segments=2, num_crops=3)
    video = a_video(plan, 64, 96)
    passes = []
    shared.proposal.net.register_forward_hook(lambda *_: passes.append("view"))  # type: ignore
    with torch.no_grad():
        (output,) = predict_views([video], shared, plan, views_per_batch=4)
        assert passes == []
        views = cut_views(video, plan)
        assert torch.equal(shared(views), plain(views))
        maps = shared.proposal.view_maps(video, plan, grid=shared.token_grid, **CPU)  # type: ignore
        assert torch.equal(shared.forward_with_trace(views, maps)[1].kept_index, output.kept_index)
    assert passes == ["view"]


def test_costs_and_refusals() -> None:
    shared = SharedCrops(create_proposal("x3d_s"))
    one_view = create_proposal("x3d_s").gmacs((16, 224, 224))
    assert shared.gmacs((16, 224, 224)) == pytest.approx(one_view * 213 / 160 / 3, rel=0.08)  # 160 x 213 pixels
    assert 0 < shared.norm_gmacs((16, 224, 224)) < create_proposal("x3d_s").norm_gmacs((16, 224, 224))
    with pytest.raises(ConfigError, match="3-D network such as x3d_s or slowonly_r50, got proposal 'random'"):
        SharedCrops(create_proposal("random"))
    with pytest.raises(ConfigError, match="got proposal 'centre'"):
        prune(make_host("VideoMAE"), PaPr(0.5, proposal="centre", shared_crops=True))


def test_state_dict_holds_the_network_once(tmp_path: Path) -> None:
    shared = SharedCrops(create_proposal("x3d_tiny"))
    assert {key.split(".")[0] for key in shared.state_dict()} == {"net"}
