"""Where tokens went: every reduction leaves one `Move`, and following the moves leads back to the original places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Move:
    """One reduction from K to K' tokens. Positions leave the prefix tokens out and are those just before and after it.

    Old tokens that are neither in `kept` nor in `joined` are gone.

    Attributes:
        kept: int64 [B, K'], the old position of the token that each new one continues, in the new order.
        joined: int64 [B, M], old positions of tokens that went into another one; None if none did.
        host: int64 [B, M], the new position of the token that each of them went into.
    """

    kept: Tensor
    joined: Tensor | None = None
    host: Tensor | None = None


def follow_moves(moves: Sequence[Move], batch: int, num_tokens: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Original coordinates after a sequence of reductions of `num_tokens` tokens.

    Returns:
        place: int64 [B, K], the original place of each token that is left, in its order; unique within a sample.
        assignment: int64 [B, N], for each original token the position of the token it is in now, -1 if it is gone.
    """
    place = torch.arange(num_tokens, device=device).expand(batch, -1)  # [B, N]
    assignment = place
    for move in moves:
        old_count, new_count = place.shape[1], move.kept.shape[1]
        moved_to = torch.full((batch, old_count), -1, dtype=torch.int64, device=device)  # [B, K]
        moved_to = moved_to.scatter(1, move.kept, torch.arange(new_count, device=device).expand(batch, -1))
        if move.joined is not None and move.host is not None:
            moved_to = moved_to.scatter(1, move.joined, move.host)
        assignment = torch.where(assignment < 0, -1, moved_to.gather(1, assignment.clamp(min=0)))
        place = place.gather(1, move.kept)
    return place, assignment
