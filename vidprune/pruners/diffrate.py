"""DiffRate: in each block prune to one count of tokens, then merge to another; the counts come from a file.

Source: Chen et al., "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers", ICCV 2023,
section 3. How the counts are learned is not part of this; the authors publish theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.pruners.attention_score import attention_score, check_score
from vidprune.pruners.base import BlockStep, HostInfo, Pruner
from vidprune.pruners.rate_files import read_rates
from vidprune.pruners.tome import is_count
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.merge import merge_mean, merged_sizes
from vidprune.tokens.moves import Move
from vidprune.tokens.reduce import gather_tokens
from vidprune.tokens.select import split_index
from vidprune.tokens.squeeze import most_similar
from vidprune.tokens.state import TokenState

Counts = tuple[int, ...]


@dataclass(frozen=True)
class DiffRate(Pruner):
    """Per block: keep the best attended tokens, then merge the lowest of them into the others.

    All counts include the prefix tokens, as published: 197 is everything for 196 patches and a class token. A count
    above what is there does nothing, so a list of large numbers equals the host bit for bit.

    Args:
        rates: a JSON file; see `vidprune.pruners.rate_files.read_rates` for its forms.
        entry: which schedule of the file, such as "ViT-S-DeiT/2.9"; needed where there are several.
        prune_kept, merge_kept: instead of a file, the tokens kept after pruning and after merging, one number per
            block; one of them left out skips that step.
        score: as `EViT`: class attention, or a declared substitute for hosts without class token.
    """

    rates: str | Path | None = None
    entry: str | None = None
    prune_kept: Sequence[int] | None = None
    merge_kept: Sequence[int] | None = None
    score: str = "auto"
    name = "diffrate"

    def __post_init__(self) -> None:
        check_score(self.score)
        lists = [field for field in (self.prune_kept, self.merge_kept) if field is not None]
        if (self.rates is None) == (not lists):
            raise ConfigError("DiffRate needs either rates, a JSON file, or prune_kept and merge_kept, lists of counts")
        for name in ("prune_kept", "merge_kept"):  # hashable, and the same whether it came as a list or as a tuple
            object.__setattr__(self, name, _checked(name, getattr(self, name)))

    def counts(self, host: HostInfo) -> tuple[Counts, Counts]:
        """Tokens kept after pruning and after merging, per block of `host`, before they meet what is there.

        Raises:
            ConfigError: for lists that are no counts, of another length, or below one patch.
        """
        prune, merge = self.prune_kept, self.merge_kept
        if self.rates is not None:
            found = read_rates(self.rates, self.entry)
            prune, merge = (_checked(f"rates {str(self.rates)!r}", values) for values in found)
        everything = (host.num_prefix + host.grid.num_tokens,) * host.depth
        counts = (everything if prune is None else tuple(prune), everything if merge is None else tuple(merge))
        for values in counts:
            if len(values) != host.depth:
                raise ConfigError(f"DiffRate got counts for {len(values)} blocks, this host has {host.depth}")
            if min(values) <= host.num_prefix:
                raise ConfigError(
                    f"counts include the {host.num_prefix} prefix tokens of this host and must keep one more, "
                    f"got {min(values)}"
                )
        return counts

    def build(self, host: HostInfo) -> DiffRateStep:
        return DiffRateStep(self, host)


class DiffRateStep(BlockStep):
    """Prunes by attention and merges by similarity, to fixed counts per block."""

    proportional = True

    def __init__(self, config: DiffRate, host: HostInfo) -> None:
        super().__init__()
        self.prune_kept, self.merge_kept = config.counts(host)
        self.score = attention_score(config.name, config.score, host)
        self.num_prefix = host.num_prefix
        self.width = host.width

    def num_pruned_to(self, block: int, num_tokens: int) -> int:
        """Tokens left by pruning alone, prefix tokens not counted."""
        return min(num_tokens, self.prune_kept[block] - self.num_prefix)

    def num_left(self, block: int, num_tokens: int) -> int:
        return min(self.num_pruned_to(block, num_tokens), self.merge_kept[block] - self.num_prefix)

    def macs(self, block: int, num_tokens: int, num_left: int) -> float:
        num_merged = self.num_pruned_to(block, num_tokens) - num_left
        return self.score.macs(num_tokens) + float(num_merged * num_left * self.width)

    def notes(self, num_tokens: int) -> tuple[str, ...]:
        return self.score.notes()

    def forward(self, state: TokenState, seen: AttentionInputs, block: int, num_left: int) -> TokenState:
        prefix, scores = self.num_prefix, self.score(seen)  # [B, K]
        best, _ = split_index(scores, self.num_pruned_to(block, scores.shape[1]))
        first, last = split_index(scores.gather(1, best), num_left)
        kept, guests = best.gather(1, first), best.gather(1, last)
        sizes = state.sizes
        if not guests.shape[1]:  # pruning alone: each token stands for what it stood for
            tokens = gather_tokens(state.tokens, kept, prefix)
            return state.reduced(tokens, Move(kept), None if sizes is None else _with_prefix(sizes, kept, prefix))
        if sizes is None:
            sizes = torch.ones(state.tokens.shape[:2], device=state.tokens.device)  # [B, P + K]
        patches = state.tokens[:, prefix:]
        with torch.no_grad():  # as in the paper, features choose the host and no gradient flows through the choice
            host, cosine = most_similar(gather_tokens(patches, guests), gather_tokens(patches, kept))
        move = Move(kept, joined=guests, host=host)
        merged, _ = merge_mean(patches, torch.ones_like(sizes[:, prefix:]), move)  # sizes do not weigh the mean here
        # A guest adds its size times its likeness. Unlike tokens would take size away; they add nothing instead.
        own = sizes[:, prefix:]
        soft = own.scatter(1, guests, own.gather(1, guests) * cosine.clamp(min=0))
        tokens = torch.cat((state.tokens[:, :prefix], merged), dim=1)  # [B, P + K', D]
        return state.reduced(tokens, move, torch.cat((sizes[:, :prefix], merged_sizes(soft, move)), dim=1))


def _with_prefix(sizes: Tensor, kept: Tensor, prefix: int) -> Tensor:
    return torch.cat((sizes[:, :prefix], sizes[:, prefix:].gather(1, kept)), dim=1)


def _checked(name: str, counts: object) -> Counts | None:
    if counts is None:
        return None
    if isinstance(counts, Sequence) and not isinstance(counts, str) and len(counts) and all(map(is_count, counts)):
        return tuple(counts)
    raise ConfigError(f"{name} must be a list of whole numbers, one per block, got {counts!r}")
