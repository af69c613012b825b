"""One-step pruning before block 0: something scores the tokens, the best are kept, one gather follows."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace

import torch
from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.proposals.base import Proposal
from vidprune.pruners.base import HostInfo, RaggedStep, Step
from vidprune.tokens.mass import top_mass_mask
from vidprune.tokens.moves import Move
from vidprune.tokens.packed import PackedState, pack
from vidprune.tokens.reduce import gather_tokens
from vidprune.tokens.resize import map_to_scores
from vidprune.tokens.rounding import floor_count
from vidprune.tokens.select import top_k_index
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid


class GatherStep(Step):
    """Keeps the tokens that score highest; what scores them is a subclass's `score`.

    The kept tokens stay in ascending order of position, carry their position embedding (it was added before) and go
    through every block unchanged.
    """

    def __init__(self, keep_ratio: float, host: HostInfo) -> None:
        super().__init__()
        self.keep_ratio = keep_ratio
        self.num_prefix = host.num_prefix
        self._num_tokens = host.grid.num_tokens
        self._count = self.num_kept(self._num_tokens)  # once: decimals inside forward would break the graph

    def num_kept(self, num_tokens: int) -> int:
        return _num_kept(num_tokens, self.num_prefix, self.keep_ratio)

    @abstractmethod
    def score(self, pixels: Tensor, state: TokenState) -> tuple[Tensor, Tensor | None]:
        """Scores [B, N] of the tokens, and the proposal map [B, t', h', w'] behind them if there is one."""

    def forward(self, pixels: Tensor, state: TokenState) -> TokenState:
        if self.keep_ratio == 1.0:  # nothing to decide: nothing is scored and the host's result is untouched
            return state
        with torch.no_grad():  # the selection is not differentiable; kept tokens still carry gradients
            scores, proposal_map = self.score(pixels, state)
            kept_index = self.best(scores)
        tokens = gather_tokens(state.tokens, kept_index, state.num_prefix)  # [B, P + K, D]
        return replace(state.reduced(tokens, Move(kept_index)), proposal_map=proposal_map)

    def best(self, scores: Tensor) -> Tensor:
        """Places of the tokens that stay, int64 [B, K] ascending, from the scores [B, N] of all."""
        # An image host of dynamic size may get another number of tokens than it was built for.
        count = self._count if scores.shape[1] == self._num_tokens else self.num_kept(scores.shape[1])
        return top_k_index(scores, count)


class OneStep(GatherStep):
    """Keeps the tokens that a proposal scores highest."""

    def __init__(self, proposal: Proposal, keep_ratio: float, host: HostInfo, align_corners: bool = True) -> None:
        super().__init__(keep_ratio, host)
        self.proposal = proposal
        self.align_corners = align_corners

    def asks(self) -> Proposal | None:
        return None if self.keep_ratio == 1.0 else self.proposal

    def gmacs(self, clip_shape: tuple[int, int, int]) -> float:
        return 0.0 if self.keep_ratio == 1.0 else self.proposal.gmacs(clip_shape)

    def score(self, pixels: Tensor, state: TokenState) -> tuple[Tensor, Tensor | None]:
        proposal_map = ask(self.proposal, pixels, state.grid, state.proposal_map)
        return map_to_scores(proposal_map, state.grid, self.align_corners), proposal_map

    @torch.no_grad()
    def choose(self, pixels: Tensor, grid: TokenGrid, given: Tensor | None) -> tuple[Tensor, Tensor]:
        """What a forward pass would keep, int64 [B, K], and the map behind it, before any token is embedded."""
        proposal_map = ask(self.proposal, pixels, grid, given)
        return self.best(map_to_scores(proposal_map, grid, self.align_corners)), proposal_map


class MassStep(RaggedStep):
    """Keeps the fewest tokens that hold a share of what a proposal's map holds: a budget for each view of its own.

    Args:
        mass: the share, in (0, 1]; see `top_mass_mask`.
        bounds: the least and the most that may stay, as ratios in (0, 1] that count like `keep_ratio`; None for none.
    """

    def __init__(
        self,
        proposal: Proposal,
        mass: float,
        host: HostInfo,
        bounds: tuple[float | None, float | None] = (None, None),
        align_corners: bool = True,
    ) -> None:
        super().__init__()
        self.proposal = proposal
        self.mass = mass
        self.least, self.most = bounds
        self.num_prefix = host.num_prefix
        self.align_corners = align_corners

    def asks(self) -> Proposal | None:
        return self.proposal

    def gmacs(self, clip_shape: tuple[int, int, int]) -> float:
        return self.proposal.gmacs(clip_shape)

    def num_kept(self, num_tokens: int) -> int:
        return num_tokens if self.most is None else _num_kept(num_tokens, self.num_prefix, self.most)

    def forward(self, pixels: Tensor, state: TokenState) -> TokenState | PackedState:
        with torch.no_grad():
            proposal_map = ask(self.proposal, pixels, state.grid, state.proposal_map)
            scores = map_to_scores(proposal_map, state.grid, self.align_corners)  # [B, N]
            num_tokens = scores.shape[1]
            least = 1 if self.least is None else _num_kept(num_tokens, self.num_prefix, self.least)
            keep = top_mass_mask(scores, self.mass, least, self.num_kept(num_tokens))
        return pack(state, keep, proposal_map)


def ask(proposal: Proposal, pixels: Tensor, grid: TokenGrid, given: Tensor | None) -> Tensor:
    """The proposal map [B, t', h', w'] of `pixels`, or the one that was given with them."""
    if given is None:
        clip = pixels if pixels.ndim == 5 else pixels.unsqueeze(2)  # an image is a clip of one frame
        return proposal(clip, grid=grid)
    if given.ndim != 4 or len(given) != len(pixels):
        raise ConfigError(f"proposal_map must be [B, t', h', w'] with B = {len(pixels)}, got {list(given.shape)}")
    return given


class NormStep(GatherStep):
    """Keeps the tokens whose embedding, position included, is longest."""

    def score(self, pixels: Tensor, state: TokenState) -> tuple[Tensor, Tensor | None]:
        return state.tokens[:, self.num_prefix :].float().norm(dim=-1), None


def _num_kept(num_tokens: int, num_prefix: int, keep_ratio: float) -> int:
    # PaPr's n counts the prefix tokens too: 197 tokens at z = .55 keep 108 patches (PaPr, release and tables 1-2).
    return min(num_tokens, floor_count(num_tokens + num_prefix, keep_ratio))
