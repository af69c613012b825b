"""eTPS: EViT's selection, but each dropped token is squeezed into the kept token that is most like it.

Source: Wei et al., "Joint Token Pruning and Squeezing Towards More Aggressive Compression of Vision Transformers",
CVPR 2023, sections 3.2 and 3.3 (the intra-block variant).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vidprune.pruners.base import HostInfo
from vidprune.pruners.evit import AttendedStep, AttentionPruner
from vidprune.tokens.moves import Move
from vidprune.tokens.select import split_index
from vidprune.tokens.squeeze import squeeze_tokens


@dataclass(frozen=True)
class ETPS(AttentionPruner):
    """Keep ceil(keep_ratio * n) of the n tokens at each of a few blocks; the others are squeezed into those.

    Args:
        keep_ratio: share that stays at each site, of the tokens that are there. 1 equals the host bit for bit.
        blocks: the sites, counted from 0; by default as `EViT`.
        score: as `EViT`.
    """

    name = "etps"

    def build(self, host: HostInfo) -> ETPSStep:
        return ETPSStep(self.keep_ratio, self.sites(host.depth), self.score_on(host), host)


class ETPSStep(AttendedStep):
    """Squeezes the least attended tokens into their nearest kept tokens; prefix tokens are no hosts."""

    def macs(self, block: int, num_tokens: int, num_left: int) -> float:
        matching = num_left * (num_tokens - num_left) * self.width  # the similarity of dropped with kept tokens
        return super().macs(block, num_tokens, num_left) + matching

    def reduce(self, tokens: Tensor, scores: Tensor, num_left: int) -> tuple[Tensor, Move]:
        return squeeze_tokens(tokens, *split_index(scores, num_left))
