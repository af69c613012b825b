"""Samples of different token counts, one after the other in one sequence: no padding, so nothing is computed in vain.

Norms, projections and MLPs run on the whole sequence, attention on each sample alone, so a sample's result does not
depend on its batch. Measured (2 timm blocks, width 384, 6 heads, 8 samples of 30 to 100 % of 1568 tokens, one thread of
a Xeon, torch 2.13.0, medians of 5 in turn): packed 1380 ms, one sample after the other 1193, padded with a key mask
2803, packed but with padded attention 2347, nested (jagged) attention 12232, all dense 1875. With 32 samples of 30 to
100 % of 197 tokens: 339, 382, 523, 378, 628, 490. Packed is near the best at both ends; padding loses the whole gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.tokens.moves import Move, follow_moves
from vidprune.tokens.reduce import gather_tokens
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid


@dataclass(frozen=True)
class PackedState:
    """As `TokenState`, for samples whose counts differ.

    Attributes:
        tokens: [1, S, D], the samples one after the other, each with its prefix tokens first.
        counts: P + K of each sample; they add up to S.
        places: int64 [K] of each sample, the original place of each token, prefix not counted.
        moves: the reductions of each sample so far, each with a batch of one.
        grid: the host's full token grid.
        num_prefix: P.
        proposal_map: as in `TokenState`, one row per sample.
    """

    tokens: Tensor
    counts: tuple[int, ...]
    places: tuple[Tensor, ...]
    moves: tuple[tuple[Move, ...], ...]
    grid: TokenGrid
    num_prefix: int
    proposal_map: Tensor | None = None

    def rows(self, kept: Sequence[Tensor]) -> Tensor:
        """int64 [S'], where in the sequence the prefix tokens and the tokens `kept` of each sample stand."""
        rows, start = [], 0
        for count, index in zip(self.counts, kept, strict=True):
            rows += [torch.arange(start, start + self.num_prefix, device=index.device), start + self.num_prefix + index]
            start += count
        return torch.cat(rows)

    def reduced(self, tokens: Tensor, kept: Sequence[Tensor]) -> PackedState:
        """The state whose tokens [1, S', D] are those at `rows(kept)`; `kept` int64 [K'] per sample, ascending."""
        return replace(
            self,
            tokens=tokens,
            counts=tuple(self.num_prefix + len(index) for index in kept),
            places=tuple(place[index] for place, index in zip(self.places, kept, strict=True)),
            moves=tuple((*moves, Move(index[None])) for moves, index in zip(self.moves, kept, strict=True)),
        )


def pack(state: TokenState, keep: Tensor, proposal_map: Tensor | None = None) -> TokenState | PackedState:
    """Keep the tokens marked in `keep`, bool [B, K], prefix not counted. Only the counts are read on the host, at once.

    Where all samples keep equally many, a batch of one included, the state stays rectangular, and untouched where
    nothing goes. `proposal_map` is what marked them, for pictures.

    Raises:
        ConfigError: where a sample is left with nothing.
    """
    if proposal_map is not None:
        state = replace(state, proposal_map=proposal_map)
    counts = read_counts(keep.sum(dim=1))
    if set(counts) == {keep.shape[1]}:
        return state
    order = marked_first(keep)  # [B, K]
    if len(set(counts)) > 1:
        packed = as_packed(state)
        kept = [row[:count] for row, count in zip(order, counts, strict=True)]
        return packed.reduced(packed.tokens[:, packed.rows(kept)], kept)
    index = order[:, : counts[0]]  # [B, K']
    return state.reduced(gather_tokens(state.tokens, index, state.num_prefix), Move(index))


def read_counts(counts: Tensor) -> list[int]:
    """Counts [B] on the host: one wait for the device. Raises `ConfigError` where a sample is left with nothing."""
    read: list[int] = counts.tolist()
    if min(read) < 1:
        raise ConfigError(f"a step must keep at least one token of every sample, got counts {read}")
    return read


def marked_first(keep: Tensor) -> Tensor:
    """int64 [..., K], the positions marked in bool [..., K] in ascending order, then the others.

    The first so many are what `nonzero` finds, which would make the host wait for their number, once per call.
    """
    return keep.to(torch.uint8).sort(dim=-1, descending=True, stable=True).indices


def as_packed(state: TokenState) -> PackedState:
    """The same tokens, one sample after the other. Raises `ConfigError` where tokens stand for several."""
    if state.sizes is not None or state.graph is not None:
        raise ConfigError("a method whose count depends on the input cannot follow one that merges tokens")
    batch, count, width = state.tokens.shape
    device = state.tokens.device
    place, _ = follow_moves(state.moves, batch, state.grid.num_tokens, device)  # [B, K]
    return PackedState(
        tokens=state.tokens.reshape(1, batch * count, width),
        counts=(count,) * batch,
        places=tuple(place),
        moves=tuple(tuple(_of_sample(move, b) for move in state.moves) for b in range(batch)),
        grid=state.grid,
        num_prefix=state.num_prefix,
        proposal_map=state.proposal_map,
    )


def unpack(state: PackedState) -> list[TokenState]:
    """Each sample as a batch of one."""
    maps = [None] * len(state.counts) if state.proposal_map is None else state.proposal_map.split(1)
    samples = zip(state.tokens.split(state.counts, dim=1), state.moves, maps, strict=True)
    return [
        TokenState(tokens, state.grid, state.num_prefix, moves=moves, proposal_map=proposal_map)
        for tokens, moves, proposal_map in samples
    ]


def pad_index(rows: Sequence[Tensor]) -> Tensor:
    """Rows int64 [B, K] of different K as one int64 [sum of B, largest K], padded with -1 at the end."""
    longest = max(row.shape[1] for row in rows)
    return torch.cat([torch.nn.functional.pad(row, (0, longest - row.shape[1]), value=-1) for row in rows])


def _of_sample(move: Move, b: int) -> Move:
    joined = None if move.joined is None else move.joined[b : b + 1]
    host = None if move.host is None else move.host[b : b + 1]
    return Move(move.kept[b : b + 1], joined, host)
