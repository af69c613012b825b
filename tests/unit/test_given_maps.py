"""A proposal map given with the input takes the place of the proposal's own pass."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.hosts import make_host, pixels_for
from vidprune.errors import ConfigError
from vidprune.inference import plan_for, predict_views
from vidprune.proposals.base import VideoProposal
from vidprune.pruners.papr import PaPr
from vidprune.pruners.tome import ToMe
from vidprune.pruning import prune
from vidprune.types import TokenGrid, VideoFrames
from vidprune.video import ViewPlan


class Planted(VideoProposal):
    """Says for view v that the tokens at place v of each row matter most; counts how often it is asked."""

    name = "planted"
    checkpoint_source = "no weights"

    def __init__(self) -> None:
        super().__init__()
        self.num_videos = 0

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        raise AssertionError("asked for one view")

    def gmacs(self, clip_shape: tuple[int, int, int]) -> float:
        return 0.0

    def view_maps(
        self, video: VideoFrames, plan: ViewPlan, *, grid: TokenGrid, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        self.num_videos += 1
        maps = torch.zeros(plan.num_views, *grid.shape)
        for view in range(plan.num_views):
            maps[view, :, :, view % grid.w] = 1.0
        return maps


def a_video(plan: ViewPlan, seed: int) -> VideoFrames:
    numbers = np.unique(plan.frame_indices(40))
    frames = np.random.default_rng(seed).integers(0, 256, (len(numbers), 64, 90, 3), dtype=np.uint8)
    return VideoFrames(frames, numbers, 40, 0, 0, np.zeros(len(numbers), bool), 25.0, (64, 90), "pyav")


@pytest.mark.parametrize("method", [PaPr(0.5, proposal="centre"), [PaPr(0.5, proposal="centre"), ToMe(2)]])
def test_the_given_map_decides(method: object) -> None:
    host = make_host("VideoMAE")
    pruned = prune(host, method)  # type: ignore[arg-type]
    pixels = pixels_for(host)
    with torch.no_grad():
        plain = pruned(pixels)
        own = pruned.proposal(pixels, grid=pruned.token_grid)  # type: ignore[misc]
        assert torch.equal(pruned(pixels, own), plain)
        assert not torch.allclose(pruned(pixels, -own), plain, atol=1e-3)
        _, trace = pruned.forward_with_trace(pixels, -own)
    assert torch.equal(trace.proposal_map, -own)


@pytest.mark.parametrize("views_per_batch", [None, 4])
def test_a_proposal_of_whole_videos_is_asked_once_per_video(views_per_batch: int | None) -> None:
    proposal = Planted()
    pruned = prune(make_host("VideoMAE"), PaPr(0.25, proposal=proposal))
    plan = plan_for(pruned, num_segments=2, num_crops=3)
    outputs = predict_views([a_video(plan, s) for s in range(2)], pruned, plan, views_per_batch=views_per_batch)
    assert proposal.num_videos == 2
    grid = pruned.token_grid
    for output in outputs:
        for view, kept in enumerate(output.kept_index):  # type: ignore[arg-type]
            assert set((kept % grid.w).tolist()) == {view % grid.w}


def test_a_map_nobody_asks_for_or_of_another_shape_is_refused() -> None:
    host = make_host("VideoMAE")
    pixels = pixels_for(host)
    with pytest.raises(ConfigError, match="asks no proposal"):
        prune(host, PaPr(1.0, proposal="centre"))(pixels, torch.zeros(2, 4, 4, 4))
    with pytest.raises(ConfigError, match="B = 2"):
        prune(host, PaPr(0.5, proposal="centre"))(pixels, torch.zeros(3, 4, 4, 4))
