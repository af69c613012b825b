"""What a pruner is: a frozen config dataclass (what users see) that builds a step (what runs)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid


@dataclass(frozen=True)
class HostInfo:
    """What a step may know of the model it prunes: token grid, prefix tokens and depth."""

    grid: TokenGrid
    num_prefix: int
    depth: int


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


class Pruner(ABC):
    """Base of the method configs: a frozen dataclass with `build`."""

    name: str

    @abstractmethod
    def build(self, host: HostInfo) -> Step:
        """The step that runs this method on `host`. Raises `ConfigError` where the host lacks what it needs."""
