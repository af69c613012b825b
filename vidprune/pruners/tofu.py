"""ToFu: match tokens as ToMe does; early blocks drop the matched ones, later blocks merge them and keep their norm.

Source: Kim et al., "Token Fusion: Bridging the Gap between Token Pruning and Token Merging", WACV 2024, section 3
(pruning while the layers are far from linear, MLERP merging afterwards).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.pruners.base import HostInfo
from vidprune.pruners.tome import MergeStep, ToMe, is_count
from vidprune.tokens.merge import merge_mlerp
from vidprune.tokens.moves import Move
from vidprune.tokens.reduce import gather_tokens


@dataclass(frozen=True)
class ToFu(ToMe):
    """Take `r` tokens away in each block from `start_block` on: drop them before block `merge_from`, merge from there.

    Args:
        r, start_block, inflect, proportional_attention, weighted_pooling: as in `ToMe`.
        merge_from: the first block, counted from 0, that merges; by default the one after half of the depth (7 of 12).
            Where layers turn from bent to nearly straight depends on the model, so it is a parameter.
    """

    merge_from: int | None = None
    name = "tofu"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.merge_from is not None and not is_count(self.merge_from):
            raise ConfigError(f"merge_from must be a whole number from 0, got {self.merge_from!r}")

    def build(self, host: HostInfo) -> ToFuStep:
        merge_from = host.depth // 2 + 1 if self.merge_from is None else self.merge_from
        return ToFuStep(self.schedule(host.depth), host, merge_from, self.proportional_attention, self.weighted_pooling)


class ToFuStep(MergeStep):
    """Drops matched tokens in early blocks, merges them by MLERP later."""

    def __init__(
        self, schedule: Sequence[int], host: HostInfo, merge_from: int, proportional: bool, weighted_pooling: bool
    ) -> None:
        super().__init__(schedule, host, proportional, weighted_pooling)
        self.merge_from = merge_from

    def merge(self, tokens: Tensor, sizes: Tensor, move: Move, block: int) -> tuple[Tensor, Tensor, Move]:
        if block >= self.merge_from:
            return *merge_mlerp(tokens, sizes, move), move
        return gather_tokens(tokens, move.kept), sizes.gather(1, move.kept), Move(move.kept)
