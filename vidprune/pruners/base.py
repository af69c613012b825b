"""What a pruner is: a frozen config dataclass (what users see) that builds a step (what runs).

A `Step` runs once, before the first block. A `BlockStep` acts inside blocks, between attention and MLP.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from vidprune.proposals.base import Proposal
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid


@dataclass(frozen=True)
class HostInfo:
    """What a step may know of the model it prunes.

    Attributes:
        grid: its token grid.
        num_prefix: class, distillation and register tokens.
        depth: number of blocks.
        width: D, length of a token.
        num_heads: attention heads per block.
        has_class_token: whether the first prefix token is a class token.
    """

    grid: TokenGrid
    num_prefix: int
    depth: int
    width: int
    num_heads: int
    has_class_token: bool


class Step(nn.Module, ABC):
    """A reduction that runs once, on the embedded tokens, before the first block."""

    @abstractmethod
    def forward(self, pixels: Tensor, state: TokenState) -> TokenState:
        """Reduce `state`; `pixels` is the model's own input, [B, 3, T, H, W] or [B, 3, H, W]."""

    @abstractmethod
    def num_kept(self, num_tokens: int) -> int:
        """Tokens left of `num_tokens`, prefix tokens in neither; known before anything runs."""

    def gmacs(self, clip_shape: tuple[int, int, int]) -> float:
        """Cost of the decision itself in giga multiply-accumulates per view of (T, H, W) pixels."""
        return 0.0

    def asks(self) -> Proposal | None:
        """The proposal that a forward pass will ask; a map given with the input takes its place."""
        return None


class BlockStep(nn.Module, ABC):
    """A reduction inside blocks, on the tokens after the attention's residual and before the MLP.

    All counts leave the prefix tokens out. Where `acts` is False the host's own block runs.

    Attributes:
        proportional: add log(size) of each key to the attention logits of the blocks after a reduction.
        weighted_pooling: where the host averages tokens, weigh them by size.
    """

    proportional: bool = False
    weighted_pooling: bool = False

    @abstractmethod
    def forward(self, state: TokenState, seen: AttentionInputs, block: int, num_left: int) -> TokenState:
        """Reduce `state` to `num_left` tokens in block number `block`, which has just attended over `seen`."""

    @abstractmethod
    def num_left(self, block: int, num_tokens: int) -> int:
        """Tokens that enter the MLP of `block` when `num_tokens` enter its attention; known before anything runs."""

    def acts(self, block: int, num_tokens: int) -> bool:
        """Whether anything happens in `block`; by default, whether it gets fewer."""
        return self.num_left(block, num_tokens) < num_tokens

    def macs(self, block: int, num_tokens: int, num_left: int) -> float:
        """Multiply-accumulates of the step itself in a block where it acts."""
        return 0.0

    def prepare(self, state: TokenState) -> TokenState:
        """Once per forward, on the tokens that enter the first block."""
        return state

    def prepare_macs(self, num_tokens: int) -> float:
        """Multiply-accumulates of `prepare`."""
        return 0.0

    def notes(self, num_tokens: int) -> tuple[str, ...]:
        """What a reader of the result must know: substitutes, clamped values. One sentence each."""
        return ()


class Pruner(ABC):
    """Base of the method configs: a frozen dataclass with `build`."""

    name: str

    @abstractmethod
    def build(self, host: HostInfo) -> Step | BlockStep:
        """The step that runs this method on `host`. Raises `ConfigError` where the host lacks what it needs."""
