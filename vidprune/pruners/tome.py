"""ToMe: in every block, merge the r most similar pairs of tokens.

Source: Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023, section 3 (matching on keys, size-weighted mean,
proportional attention, Eq. 1) and section 4.1 (schedules).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import torch
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.pruners.base import BlockStep, HostInfo, Pruner
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.merge import bipartite_match, max_merged, merge_mean
from vidprune.tokens.moves import Move
from vidprune.tokens.state import TokenState


@dataclass(frozen=True)
class ToMe(Pruner):
    """Merge `r` tokens away in each block from `start_block` on. Prefix tokens never merge and are never merged into.

    Args:
        r: tokens to merge per block; (r, inflect) for a schedule; or one number per block of the host. A block merges
            at most half of its tokens: a larger r is clamped, as in the paper, and the notes of the result say so.
        start_block: blocks before it, counted from 0, merge nothing; with `PaPr` the second half is usual.
        inflect: slope of the schedule over the blocks from `start_block` on, in [-1, 1]; -1 falls from 2 r to 0, the
            paper's "decreasing" schedule, 0 is constant. Truncated per block, so (16, -1) merges 187 and not 192.
        proportional_attention: add log(size) of each key to the attention logits after the first merge (Eq. 1); the
            paper turns it off for MAE-pretrained models.
        weighted_pooling: on hosts that average tokens, weigh each by its size; False is the plain mean over what is
            left, as in the release for timm.
    """

    r: int | tuple[int, float] | Sequence[int]
    start_block: int = 0
    inflect: float = 0.0
    proportional_attention: bool = True
    weighted_pooling: bool = True
    name = "tome"

    def __post_init__(self) -> None:
        rate: object = self.r
        if isinstance(rate, tuple) and len(rate) == 2 and self.inflect == 0.0:
            object.__setattr__(self, "inflect", rate[1])
            rate = rate[0]
        elif isinstance(rate, Sequence) and not isinstance(rate, str):
            rate = tuple(rate)
        object.__setattr__(self, "r", rate)  # hashable, and the same whether it came as a list or as a tuple
        if not all(is_count(value) for value in (rate if isinstance(rate, tuple) else (rate,))):
            raise ConfigError(f"r must be a whole number from 0, (r, inflect) or one number per block, got {self.r!r}")
        if not is_count(self.start_block):
            raise ConfigError(f"start_block must be a whole number from 0, got {self.start_block!r}")
        if isinstance(self.inflect, bool) or not isinstance(self.inflect, int | float) or not -1 <= self.inflect <= 1:
            raise ConfigError(f"inflect must be a number in [-1, 1], got {self.inflect!r}; -1 merges most at the start")
        if isinstance(rate, tuple) and (self.inflect or self.start_block):
            raise ConfigError("r as one number per block goes with neither inflect nor start_block: put zeros in it")

    def schedule(self, depth: int) -> tuple[int, ...]:
        """Tokens to merge per block of a host of `depth` blocks, before any clamping.

        Raises:
            ConfigError: for a list of another length, or a `start_block` beyond the last block.
        """
        if isinstance(self.r, tuple):
            if len(self.r) != depth:
                raise ConfigError(f"r names {len(self.r)} blocks, this host has {depth}: give one number per block")
            return self.r  # __post_init__ turned (r, inflect) into two fields
        if self.start_block >= depth:
            raise ConfigError(f"start_block must be below {depth}, the number of blocks, got {self.start_block}")
        rate, steps = int(self.r), depth - self.start_block - 1  # type: ignore[arg-type]
        first = int(rate * (1 - Decimal(repr(float(self.inflect)))))
        last = 2 * rate - first
        # Whole numbers throughout: first + i (last - first) / steps in floats can fall just below an integer.
        rising = [(first * steps + (last - first) * i) // steps for i in range(steps + 1)] if steps else [rate]
        return (0,) * self.start_block + tuple(rising)

    def build(self, host: HostInfo) -> MergeStep:
        return MergeStep(self.schedule(host.depth), host, self.proportional_attention, self.weighted_pooling)


class MergeStep(BlockStep):
    """Merges a scheduled number of tokens per block; the keys, averaged over heads, say which are similar."""

    def __init__(
        self, schedule: Sequence[int], host: HostInfo, proportional: bool = True, weighted_pooling: bool = True
    ) -> None:
        super().__init__()
        self.schedule = tuple(schedule)
        self.num_prefix = host.num_prefix
        self.head_dim = host.width // host.num_heads
        self.proportional = proportional
        self.weighted_pooling = weighted_pooling

    def num_left(self, block: int, num_tokens: int) -> int:
        return num_tokens - min(self.schedule[block], max_merged(num_tokens))

    def macs(self, block: int, num_tokens: int, num_left: int) -> float:
        smaller = num_tokens // 2
        return float(smaller * (num_tokens - smaller) * self.head_dim)  # the similarity of A with B

    def notes(self, num_tokens: int) -> tuple[str, ...]:
        clamped = []
        for block, rate in enumerate(self.schedule):
            left = self.num_left(block, num_tokens)
            if num_tokens - left < rate:
                clamped.append(block)
            num_tokens = left
        if not clamped:
            return ()
        return (f"r is clamped to half of the tokens in blocks {', '.join(map(str, clamped))}",)

    def forward(self, state: TokenState, seen: AttentionInputs, block: int, num_left: int) -> TokenState:
        prefix = self.num_prefix
        metric = seen.keys[:, :, prefix:].float().mean(dim=1)  # [B, K, head_dim]
        move = bipartite_match(metric, metric.shape[1] - num_left, prefix)
        sizes = state.sizes
        if sizes is None:
            sizes = torch.ones(state.tokens.shape[:2], device=state.tokens.device)  # [B, P + K]
        merged, merged_sizes, move = self.merge(state.tokens[:, prefix:], sizes[:, prefix:], move, block)
        tokens = torch.cat((state.tokens[:, :prefix], merged), dim=1)  # [B, P + K', D]
        if move.joined is None and state.sizes is None:  # dropped, not merged: each token still stands for itself
            return state.reduced(tokens, move)
        return state.reduced(tokens, move, torch.cat((sizes[:, :prefix], merged_sizes), dim=1))

    def merge(self, tokens: Tensor, sizes: Tensor, move: Move, block: int) -> tuple[Tensor, Tensor, Move]:
        """New tokens [B, K', D], their sizes [B, K'] and what happened, given what was matched."""
        return *merge_mean(tokens, sizes, move), move


def is_count(value: object) -> bool:
    """Whether `value` is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
