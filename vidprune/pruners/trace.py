"""What one forward pass kept, in original places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vidprune.pruners.block_parts import BlockPlan
from vidprune.tokens.moves import follow_moves
from vidprune.tokens.packed import pad_index
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid

Part = tuple[TokenState, tuple[BlockPlan, ...]]
"""Samples that kept equally many tokens, as they leave the last block, and what the blocks did to them."""


@dataclass(frozen=True)
class PruneTrace:
    """What one forward pass kept.

    Where the counts depend on the input, samples of one batch differ: rows are then padded at the end, indices with -1
    and sizes with 0, and counts are means over the samples, rounded; `plans` and `num_kept` have each sample's own.
    `kept_index` and `assignment` are then never None.

    Attributes:
        kept_index: int64 [B, K] ascending, the original places, without prefix tokens, of the tokens that reach the
            head; a merged token stands at the place of the token that the others joined. None if all were kept.
        token_counts: tokens entering each block, prefix tokens included.
        grid: the host's token grid.
        proposal_map: [B, t', h', w'] on the proposal's own grid, or None.
        mlp_token_counts: tokens entering each block's MLP, prefix tokens included.
        assignment: int64 [B, N], for each original token the row of `sizes` and of the final tokens it is in, prefix
            not counted; -1 if it was dropped. None if all were kept.
        sizes: float32 [B, K], how many tokens each final token stands for; None where nothing was merged.
        notes: substitutes and clamped values that a reader must know.
        plans: what each block did, one row per sample, or one row alone where all samples went the same way.
    """

    kept_index: Tensor | None
    token_counts: tuple[int, ...]
    grid: TokenGrid
    proposal_map: Tensor | None
    mlp_token_counts: tuple[int, ...] = ()
    assignment: Tensor | None = None
    sizes: Tensor | None = None
    notes: tuple[str, ...] = ()
    plans: tuple[tuple[BlockPlan, ...], ...] = ()

    @property
    def num_kept(self) -> Tensor | None:
        """int64 [B], how many tokens of each sample reach the head, prefix not counted; None if all were kept."""
        return None if self.kept_index is None else (self.kept_index >= 0).sum(dim=1)


def trace_of(parts: Sequence[Part], notes: tuple[str, ...], ragged: bool) -> PruneTrace:
    """The trace of a forward pass whose samples left the last block in `parts`, in their order.

    Args:
        ragged: whether counts depend on the input; even where all tokens were kept, the next batch may lose some.
    """
    states, plans = zip(*parts, strict=True)
    kept_index = assignment = sizes = None
    if ragged or any(state.moves for state in states):
        followed = [follow_moves(s.moves, len(s.tokens), s.grid.num_tokens, s.tokens.device) for s in states]
        kept_index = pad_index([place.sort(dim=1).values for place, _ in followed])
        assignment = torch.cat([assigned for _, assigned in followed])
    if any(state.sizes is not None for state in states):
        longest = max(state.tokens.shape[1] for state in states)
        sizes = torch.cat([F.pad(_sizes(s), (0, longest - s.tokens.shape[1])) for s in states])
        sizes = sizes[:, states[0].num_prefix :]
    maps = [state.proposal_map for state in states if state.proposal_map is not None]
    return PruneTrace(
        kept_index=kept_index,
        token_counts=_mean_counts([[block.attention for block in plan] for plan in plans]),
        grid=states[0].grid,
        proposal_map=None if not maps else maps[0] if len(maps) == 1 else torch.cat(maps),
        mlp_token_counts=_mean_counts([[block.mlp for block in plan] for plan in plans]),
        assignment=assignment,
        sizes=sizes,
        notes=notes,
        plans=plans,
    )


def _sizes(state: TokenState) -> Tensor:
    return state.tokens.new_ones(state.tokens.shape[:2], dtype=torch.float32) if state.sizes is None else state.sizes


def _mean_counts(counts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(round(sum(column) / len(column)) for column in zip(*counts, strict=True))
