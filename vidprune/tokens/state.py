"""The per-forward state that travels through the blocks; nothing is left on any module."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vidprune.types import TokenGrid


@dataclass(frozen=True)
class TokenState:
    """Tokens of one forward pass and where they came from.

    Attributes:
        tokens: [B, P + K, D], prefix tokens first.
        grid: the host's full token grid, before any reduction.
        num_prefix: P, class, distillation and register tokens, never pruned.
        kept_index: int64 [B, K] ascending, in coordinates of the full grid; None while every token is there.
        proposal_map: [B, t', h', w'] of the proposal that chose them, for pictures; None without one.
    """

    tokens: Tensor
    grid: TokenGrid
    num_prefix: int
    kept_index: Tensor | None = None
    proposal_map: Tensor | None = None
