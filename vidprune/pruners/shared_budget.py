"""One budget for all frames of a clip: busy frames keep more tokens than quiet ones, none keeps nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.proposals.base import Proposal
from vidprune.pruners.base import HostInfo, Pruner, RaggedStep
from vidprune.pruners.one_step import GatherStep
from vidprune.tokens.packed import PackedState, pack
from vidprune.tokens.select import keep_mask, top_k_index
from vidprune.tokens.state import TokenState


@dataclass(frozen=True)
class SharedBudget(Pruner):
    """`method`, choosing among the tokens of `num_frames` consecutive samples together.

    As many tokens are kept as if every frame kept its own share: `num_frames` times PaPr's int(n z). `FrameBatch` makes
    these where its budget is "clip".

    Args:
        method: one that scores the tokens once, before the first block: papr, random, uniform, centre, norm, ...
        num_frames: samples that share a budget; batches must be multiples of it.
    """

    method: Pruner
    num_frames: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.method.name)  # it is no method of its own: no class attribute

    @property
    def keep_ratio(self) -> Any:
        """The method's own."""
        return getattr(self.method, "keep_ratio", None)

    def build(self, host: HostInfo) -> SharedBudgetStep:
        step = self.method.build(host)
        if not isinstance(step, GatherStep):
            raise ConfigError(
                "a budget shared over a clip needs a method that ranks all tokens before the first block, such as papr "
                f"or random, got {self.name}; use a budget per frame"
            )
        return SharedBudgetStep(step, self.num_frames)


class SharedBudgetStep(RaggedStep):
    """Ranks the tokens of all frames of a clip together; the best token of each frame comes first."""

    def __init__(self, step: GatherStep, num_frames: int) -> None:
        super().__init__()
        self.step = step
        self.num_frames = num_frames

    def forward(self, pixels: Tensor, state: TokenState) -> TokenState | PackedState:
        if self.step.keep_ratio == 1.0:
            return state
        if len(pixels) % self.num_frames:
            raise ConfigError(f"{len(pixels)} frames are no whole number of clips of {self.num_frames} frames")
        with torch.no_grad():
            scores, proposal_map = self.step.score(pixels, state)  # [B * T, N]
            keep = share(scores, self.num_frames, self.clip_total(scores.shape[1]))
        return pack(state, keep, proposal_map)

    def clip_total(self, num_tokens: int) -> int:
        """Tokens that a clip keeps of `num_tokens` per frame."""
        return self.num_frames * self.step.num_kept(num_tokens)

    def num_kept(self, num_tokens: int) -> int:
        return min(num_tokens, self.clip_total(num_tokens) - (self.num_frames - 1))

    def gmacs(self, clip_shape: tuple[int, int, int]) -> float:
        return self.step.gmacs(clip_shape)

    def asks(self) -> Proposal | None:
        return self.step.asks()

    @property
    def proposal(self) -> Proposal | None:
        """The proposal that ranks the tokens, asked or not; None for methods without one."""
        return getattr(self.step, "proposal", None)


def share(scores: Tensor, num_frames: int, total: int) -> Tensor:
    """What each frame keeps when `total` tokens are kept per clip: the best of every frame, then the best of the rest.

    Args:
        scores: [B * T, N].
        num_frames: T.
        total: at least T.

    Returns:
        bool [B * T, N], `total` of them True per clip. Ties keep the lower frame, then the lower index.
    """
    num_tokens = scores.shape[1]
    best = keep_mask(top_k_index(scores, 1), num_tokens)
    # Ranks instead of scores: a frame's best stands before all others, whatever the scores' range.
    order = scores.float().nan_to_num(nan=float("-inf")).reshape(-1, num_frames * num_tokens)  # [B, T * N]
    order = order.argsort(dim=1, descending=True, stable=True).argsort(dim=1)  # the rank of each token, 0 for the best
    order = torch.where(best.reshape(order.shape), -1, order)
    return keep_mask(top_k_index(-order, total), num_frames * num_tokens).reshape(-1, num_tokens)
