"""The per-forward state that travels through the blocks; nothing is left on any module."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from vidprune.tokens.moves import Move
from vidprune.types import TokenGrid


@dataclass(frozen=True)
class TokenState:
    """Tokens of one forward pass and where they came from.

    Attributes:
        tokens: [B, P + K, D], prefix tokens first.
        grid: the host's full token grid, before any reduction.
        num_prefix: P, class, distillation and register tokens, never pruned.
        sizes: float32 [B, P + K], how many tokens each one stands for; None while each stands for itself.
        moves: the reductions so far, oldest first; `follow_moves` turns them into original coordinates.
        proposal_map: [B, t', h', w'], what the proposal said or, before it was asked, what is given in its place.
        graph: [B, K, K], what `GTP` passes along between tokens; None for every other method.
    """

    tokens: Tensor
    grid: TokenGrid
    num_prefix: int
    sizes: Tensor | None = None
    moves: tuple[Move, ...] = ()
    proposal_map: Tensor | None = None
    graph: Tensor | None = None

    def reduced(self, tokens: Tensor, move: Move, sizes: Tensor | None = None) -> TokenState:
        """The state after `move`: its new tokens [B, P + K', D] and sizes."""
        return replace(self, tokens=tokens, sizes=sizes, moves=(*self.moves, move))
