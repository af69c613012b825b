"""The traces of the frames of clips, put together as the traces of the clips."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from vidprune.pruners.trace import PruneTrace
from vidprune.types import TokenGrid


def trace_of_clips(trace: PruneTrace, num_frames: int, proposal_map: Tensor | None) -> PruneTrace:
    """The trace of B clips from that of their B * T frames: places on the grid (T, h, w), counts summed over frames.

    `plans` stay those of the frames, which are what the blocks ran.

    Args:
        num_frames: T.
        proposal_map: [B, t', h', w'] of the clips, or None.
    """
    trace = replace(
        trace,
        grid=TokenGrid(num_frames, trace.grid.h, trace.grid.w),
        token_counts=tuple(count * num_frames for count in trace.token_counts),
        mlp_token_counts=tuple(count * num_frames for count in trace.mlp_token_counts),
        proposal_map=proposal_map,
    )
    if trace.kept_index is None or trace.assignment is None:
        return trace
    kept = trace.kept_index.unflatten(0, (-1, num_frames))  # [B, T, K], -1 where a frame kept fewer
    counts = (kept >= 0).sum(dim=2, keepdim=True)  # [B, T, 1]
    frame = torch.arange(num_frames, device=kept.device).view(1, -1, 1)
    kept = torch.where(kept < 0, -1, kept + frame * (trace.grid.h * trace.grid.w)).flatten(1)  # [B, T * K]
    assignment = trace.assignment.unflatten(0, (-1, num_frames))  # [B, T, N]
    before = counts.cumsum(dim=1) - counts  # final tokens of the frames before
    assignment = torch.where(assignment < 0, -1, assignment + before).flatten(1)  # [B, T * N]
    sizes = None if trace.sizes is None else trace.sizes.unflatten(0, (-1, num_frames)).flatten(1)
    if len(trace.plans) > 1:  # frames kept different numbers: padding goes to the end of the clip
        finals = [plan[-1].mlp for plan in trace.plans]  # per frame, prefix tokens included; no need to read `counts`
        num_prefix = max(finals) - trace.kept_index.shape[1]
        longest = max(sum(finals[i : i + num_frames]) for i in range(0, len(finals), num_frames))
        order = (kept < 0).to(torch.uint8).argsort(dim=1, stable=True)[:, : longest - num_frames * num_prefix]
        kept = kept.gather(1, order)
        sizes = None if sizes is None else sizes.gather(1, order)
    return replace(trace, kept_index=kept, assignment=assignment, sizes=sizes)
