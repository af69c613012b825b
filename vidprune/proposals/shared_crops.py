"""One pass of a video network per temporal segment, shared by its crops, where the paper's way is one pass per crop."""

from __future__ import annotations

import torch
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.proposals.base import ClipShape, Proposal, VideoProposal
from vidprune.proposals.nets3d import NetProposal
from vidprune.types import TokenGrid, VideoFrames
from vidprune.video import ViewPlan
from vidprune.video.views import whole_clips

# What costs are stated for, as a cost per view depends on the file: most of Kinetics' copies, and three crops.
USUAL_ASPECT, USUAL_CROPS = 340 / 256, 3


class SharedCrops(VideoProposal):
    """The network's map of the whole frame, cut into one map per crop.

    The frame goes in at the scale at which a crop would, so one cell of the map spans as many pixels (the network's
    `stride`) either way. Cell i of a crop that starts d input pixels into the frame is cell i + d / stride of the
    frame's map, read linearly between its two neighbours. This is the crop's own map up to what the network sees
    beyond the crop's edges, where that has zeros, and what it pools over the whole input (X3D's squeeze-excitation).

    Without a video, on clips alone, it is the plain network.
    """

    def __init__(self, net: Proposal) -> None:
        super().__init__()
        if not isinstance(net, NetProposal):
            raise ConfigError(
                f"shared_crops goes with a 3-D network such as x3d_s or slowonly_r50, got proposal {net.name!r}"
            )
        self.net = net
        self.name = net.name
        self.description = f"{net.description}, one pass per segment"
        self.checkpoint_source = net.checkpoint_source

    def forward(self, clip: Tensor, *, grid: TokenGrid | None = None) -> Tensor:
        return self.net(clip, grid=grid)

    def view_maps(
        self, video: VideoFrames, plan: ViewPlan, *, grid: TokenGrid, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        clips = whole_clips(video, plan, device=device, dtype=dtype)  # [S, 3, T, H, W]
        height, width = clips.shape[3:]
        seen = self.net.input_size((plan.num_frames, plan.crop_size, plan.crop_size))  # of one crop
        maps = self.net.map_at(clips, self._frame_size(seen, plan.crop_size, height, width))  # [S, t', h', w']
        crops = []
        for offset in plan.crop_offsets(height, width):
            rows, columns = (
                self._reader(cells, start, side, plan.crop_size, maps.device)
                for cells, start, side in zip(maps.shape[2:], offset, seen[1:], strict=True)
            )
            crops.append(torch.einsum("sthw,yh,xw->styx", maps, rows, columns))
        return torch.stack(crops, dim=1).flatten(0, 1)  # [S, crops, t', y, x] -> [V, t', y, x]

    def gmacs(self, clip_shape: ClipShape) -> float:
        """Per view, of frames of `USUAL_ASPECT` and `USUAL_CROPS` crops of (H, W) = `clip_shape[1:]`."""
        return self.net.gmacs_at(self._usual_size(clip_shape)) / USUAL_CROPS

    def norm_gmacs(self, clip_shape: ClipShape) -> float:
        return self.net.norm_gmacs_at(self._usual_size(clip_shape)) / USUAL_CROPS

    def _usual_size(self, clip_shape: ClipShape) -> ClipShape:
        seen, (_, height, width) = self.net.input_size(clip_shape), clip_shape
        return self._frame_size(seen, width, height, round(width * USUAL_ASPECT))

    @staticmethod
    def _frame_size(seen: ClipShape, crop_size: int, height: int, width: int) -> ClipShape:
        """The (T, H, W) at which a frame of (height, width) goes in when a crop goes in as `seen`."""
        return (seen[0], round(height * seen[1] / crop_size), round(width * seen[2] / crop_size))

    def _reader(self, cells: int, start: int, side: int, crop_size: int, device: torch.device) -> Tensor:
        """Along one axis, what each cell of a crop's map reads of the frame's `cells`: float32 [cells', cells].

        Made on the device: a copy from the host would wait there for the network's pass.
        """
        stride = self.net.spec.stride
        first = start * side / crop_size / stride
        place = torch.arange(-(-side // stride), device=device) + first
        place = place.clamp(max=cells - 1)  # a sliver beyond the last one
        return (1 - (place[:, None] - torch.arange(cells, device=device)).abs()).clamp(min=0)
