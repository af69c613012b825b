"""What a pruner is: a frozen config dataclass (what users see) that builds a step (what runs).

A `Step` runs once, before the first block. A `BlockStep` acts inside blocks, between attention and MLP. Both leave
all samples equally many tokens. Where counts depend on the input, they are a `RaggedStep` and a `RaggedBlockStep`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from vidprune.proposals.base import Proposal
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.packed import PackedState
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
    def forward(self, pixels: Tensor, state: TokenState) -> TokenState | PackedState:
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


class RaggedStep(Step):
    """A `Step` whose count depends on the input, so samples of one batch may keep different numbers of tokens.

    To write one: mark what each sample keeps, from that sample alone, in `keep`, bool [B, N] with at least one True per
    row, and end with `return pack(state, keep, proposal_map)`. The rest is done by `PrunedViT`: what follows runs on a
    packed sequence, or, inside a method that wants one count for all (`BlockStep`), on one sample after the other.
    """

    @abstractmethod
    def forward(self, pixels: Tensor, state: TokenState) -> TokenState | PackedState:
        """Reduce `state` by `tokens.packed.pack`, under `torch.no_grad()` as far as it only selects."""

    def num_kept(self, num_tokens: int) -> int:
        """The most that may be left of `num_tokens`; how many are left is known after a forward pass alone."""
        return num_tokens


class InBlockStep(nn.Module, ABC):
    """What `BlockStep` and `RaggedBlockStep` share. All counts leave the prefix tokens out.

    Attributes:
        proportional: add log(size) of each key to the attention logits of the blocks after a reduction.
        weighted_pooling: where the host averages tokens, weigh them by size.
    """

    proportional: bool = False
    weighted_pooling: bool = False

    @abstractmethod
    def acts(self, block: int, num_tokens: int) -> bool:
        """Whether anything happens in `block`; where not, the host's own block runs."""

    @abstractmethod
    def num_left(self, block: int, num_tokens: int) -> int:
        """Tokens that enter the MLP of `block` when `num_tokens` enter its attention; known before anything runs."""

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


class BlockStep(InBlockStep):
    """A reduction inside blocks, on the tokens after the attention's residual and before the MLP."""

    @abstractmethod
    def forward(self, state: TokenState, seen: AttentionInputs, block: int, num_left: int) -> TokenState:
        """Reduce `state` to `num_left` tokens in block number `block`, which has just attended over `seen`."""

    def acts(self, block: int, num_tokens: int) -> bool:
        """Whether anything happens in `block`; by default, whether it gets fewer."""
        return self.num_left(block, num_tokens) < num_tokens


class RaggedBlockStep(InBlockStep):
    """A selection inside blocks whose count depends on the input.

    To write one: say in `acts` which blocks select, and in `keep` what stays of one sample. A block in which it acts
    computes queries, keys and values of all tokens, asks `keep` sample by sample, and computes attention output,
    projection and MLP for the kept tokens alone: what goes is still a key in this block, for the last time. That
    equals dropping between attention and MLP, and costs less. Nothing is merged, so there are no sizes.
    """

    @abstractmethod
    def keep(self, seen: AttentionInputs, block: int, place: Tensor) -> Tensor:
        """Which tokens of one sample stay. Called under `torch.no_grad()`; read no value here.

        The marks stay on the device until all samples have theirs: one wait per block, not one per sample.

        Args:
            seen: the sample's own, [1, heads, P + K, head_dim].
            block: its number, from 0.
            place: int64 [K], the original place of each token, prefix not counted.

        Returns:
            bool [K], True = stays, prefix not counted, at least one.
        """

    def num_left(self, block: int, num_tokens: int) -> int:
        """The most that may be left of `num_tokens`; how many are left is known after a forward pass alone."""
        return num_tokens


class Pruner(ABC):
    """Base of the method configs: a frozen dataclass with `build`."""

    name: str

    @abstractmethod
    def build(self, host: HostInfo) -> Step | InBlockStep:
        """The step that runs this method on `host`. Raises `ConfigError` where the host lacks what it needs."""
