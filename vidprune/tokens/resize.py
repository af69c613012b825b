"""From a proposal's own grid to the token grid."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from vidprune.types import TokenGrid


def map_to_scores(proposal_map: Tensor, grid: TokenGrid, align_corners: bool = True) -> Tensor:
    """Resize a proposal map to the token grid and flatten it in token order.

    Videos are resized trilinearly and images (t = 1) bicubically, as in PaPr (ECCV 2024), section 3.2. PaPr's release
    aligns corners; the paper's pseudo code leaves the default, which does not: hence the option.

    Args:
        proposal_map: [B, t', h', w'], the proposal's own grid.
        grid: token grid (t, h, w) of the host.
        align_corners: as in `torch.nn.functional.interpolate`.

    Returns:
        float32 scores [B, N], N = t * h * w in (t, h, w) order.
    """
    proposal_map = proposal_map.float()
    if tuple(proposal_map.shape[1:]) == grid.shape:
        return proposal_map.flatten(1)
    if grid.t == 1 and proposal_map.shape[1] == 1:
        size = (grid.h, grid.w)
        return F.interpolate(proposal_map, size=size, mode="bicubic", align_corners=align_corners).flatten(1)
    resized = F.interpolate(
        proposal_map.unsqueeze(1),  # [B, 1, t', h', w']: one channel
        size=grid.shape,
        mode="trilinear",
        align_corners=align_corners,
    )
    return resized.flatten(1)


def maps_of_frames(proposal_map: Tensor, num_frames: int) -> Tensor:
    """Cut the maps of clips into one per frame: [B, t', h', w'] -> [B * num_frames, 1, h', w'].

    Where the map has another number of time steps, it is resized along time alone, linearly with corners aligned.
    """
    if proposal_map.shape[1] != num_frames:
        size = (num_frames, *proposal_map.shape[2:])
        proposal_map = F.interpolate(
            proposal_map.float().unsqueeze(1),  # [B, 1, t', h', w']: one channel
            size=size,
            mode="trilinear",
            align_corners=True,
        ).squeeze(1)
    return proposal_map.flatten(0, 1).unsqueeze(1)
