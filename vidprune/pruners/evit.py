"""EViT: at a few blocks, keep the tokens that the class token attends to and fuse the rest into one.

Source: Liang et al., "Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations",
ICLR 2022, section 3.2 (score and selection) and 3.3 (fused token).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.pruners.attention_score import AttentionScore, attention_score, check_score
from vidprune.pruners.base import BlockStep, HostInfo, Pruner
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.moves import Move
from vidprune.tokens.reduce import gather_tokens
from vidprune.tokens.rounding import ceil_count, check_ratio
from vidprune.tokens.select import split_index
from vidprune.tokens.state import TokenState


@dataclass(frozen=True)
class AttentionPruner(Pruner):
    """Configs of methods that keep the best attended tokens at a few blocks; `EViT` documents the fields."""

    keep_ratio: float
    blocks: Sequence[int] | None = None
    score: str = "auto"

    def __post_init__(self) -> None:
        check_ratio("keep_ratio", self.keep_ratio)
        check_score(self.score)
        if self.blocks is None:
            return
        blocks = tuple(self.blocks)
        if not blocks or list(blocks) != sorted(set(blocks)) or not all(type(b) is int and b >= 0 for b in blocks):
            raise ConfigError(f"blocks must be ascending block numbers from 0, such as [3, 6, 9], got {self.blocks!r}")
        object.__setattr__(self, "blocks", blocks)  # hashable, and the same whether it came as a list or as a tuple

    def sites(self, depth: int) -> tuple[int, ...]:
        """The blocks that prune, counted from 0. Raises `ConfigError` for one that the host does not have."""
        if self.blocks is None:
            return tuple(sorted({depth * quarter // 4 for quarter in (1, 2, 3)}))
        if self.blocks[-1] >= depth:
            raise ConfigError(f"blocks names block {self.blocks[-1]}, this host has blocks 0 to {depth - 1}")
        return tuple(self.blocks)

    def score_on(self, host: HostInfo) -> AttentionScore:
        """What scores the tokens. Raises `ConfigError` where class attention is asked of a host without class token."""
        return attention_score(self.name, self.score, host)


@dataclass(frozen=True)
class EViT(AttentionPruner):
    """Keep ceil(keep_ratio * n) of the n tokens at each of a few blocks, by the attention that the class token pays.

    Args:
        keep_ratio: share that stays at each site, of the tokens that are there, the fused token included. 1 changes
            nothing and equals the host bit for bit.
        blocks: the sites, counted from 0; by default at a quarter, half and three quarters of the depth, which is
            (3, 6, 9) of 12, the 4th, 7th and 10th block as in the paper.
        score: "class" is the paper's; "received" is the mean attention a token receives from all tokens that are not
            prefix tokens, a substitute for hosts without class token; "auto" takes the first where it can.
        fuse: append the attention-weighted sum of the dropped tokens as one more token (section 3.3). It is not
            divided by the sum of the weights, as published, and competes like any token at the next site.
    """

    fuse: bool = True
    name = "evit"

    def build(self, host: HostInfo) -> EViTStep:
        return EViTStep(self.keep_ratio, self.sites(host.depth), self.score_on(host), host, self.fuse)


class AttendedStep(BlockStep):
    """Keeps the best attended tokens at given blocks; what becomes of the others is a subclass's `reduce`."""

    def __init__(self, keep_ratio: float, sites: Sequence[int], score: AttentionScore, host: HostInfo) -> None:
        super().__init__()
        self.keep_ratio = float(keep_ratio)
        self.sites = frozenset(sites)
        self.score = score
        self.num_prefix = host.num_prefix
        self.width = host.width

    def num_best(self, num_tokens: int) -> int:
        """ceil(keep_ratio * n), the tokens that stay for their own sake."""
        return min(num_tokens, ceil_count(num_tokens, self.keep_ratio))

    def num_left(self, block: int, num_tokens: int) -> int:
        return self.num_best(num_tokens)

    def acts(self, block: int, num_tokens: int) -> bool:
        return block in self.sites and self.num_best(num_tokens) < num_tokens

    def macs(self, block: int, num_tokens: int, num_left: int) -> float:
        return self.score.macs(num_tokens)

    def notes(self, num_tokens: int) -> tuple[str, ...]:
        return self.score.notes()

    def forward(self, state: TokenState, seen: AttentionInputs, block: int, num_left: int) -> TokenState:
        scores = self.score(seen)  # [B, K]
        patches = state.tokens[:, self.num_prefix :]
        reduced, move = self.reduce(patches, scores, num_left)
        return state.reduced(torch.cat((state.tokens[:, : self.num_prefix], reduced), dim=1), move)

    @abstractmethod
    def reduce(self, tokens: Tensor, scores: Tensor, num_left: int) -> tuple[Tensor, Move]:
        """`num_left` tokens from tokens [B, K, D] with scores [B, K], prefix tokens in neither."""


class EViTStep(AttendedStep):
    """Drops the least attended tokens, or fuses them into one."""

    def __init__(
        self, keep_ratio: float, sites: Sequence[int], score: AttentionScore, host: HostInfo, fuse: bool
    ) -> None:
        super().__init__(keep_ratio, sites, score, host)
        self.fuse = fuse

    def num_left(self, block: int, num_tokens: int) -> int:
        return self.num_best(num_tokens) + self.fuse

    def reduce(self, tokens: Tensor, scores: Tensor, num_left: int) -> tuple[Tensor, Move]:
        kept_index, dropped_index = split_index(scores, num_left - self.fuse)
        kept = gather_tokens(tokens, kept_index)  # [B, K', D]
        if not self.fuse:
            return kept, Move(kept_index)
        weights = scores.gather(1, dropped_index)  # [B, K - K']
        dropped = gather_tokens(tokens, dropped_index).float()
        fused = (dropped * weights.unsqueeze(-1)).sum(dim=1, keepdim=True).to(tokens.dtype)  # [B, 1, D]
        # For the trace, the fused token stands at the place of the best attended token in it.
        heaviest = dropped_index.gather(1, weights.argmax(dim=1, keepdim=True))  # [B, 1]
        move = Move(
            kept=torch.cat((kept_index, heaviest), dim=1),
            joined=dropped_index,
            host=torch.full_like(dropped_index, kept_index.shape[1]),
        )
        return torch.cat((kept, fused), dim=1), move
