"""What a one-step method may say about hosts with stages, ConvNeXt and Swin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vidprune.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class StageOptions:
    """Options of a method that also runs on hosts with stages; a ViT has none and refuses them.

    Args:
        stages: the stages in which pixels are dropped, counted from 0; None is all. PaPr's release numbers its choices:
            its mask_block 1, 2, 3 and 4 are [2], [2, 3], [1, 2, 3] and all.
        keep_shortcut: ConvNeXt only. False, as released, zeroes a dropped pixel altogether; True drops its branch alone
            and leaves what the block got.
    """

    stages: Sequence[int] | None = None
    keep_shortcut: bool = False

    def __post_init__(self) -> None:
        if self.stages is None:
            return
        stages = tuple(self.stages)
        if not stages or list(stages) != sorted(set(stages)) or not all(type(s) is int and s >= 0 for s in stages):
            raise ConfigError(f"stages must be ascending stage numbers from 0, such as [2, 3], got {self.stages!r}")
        object.__setattr__(self, "stages", stages)  # hashable, and the same whether it came as a list or as a tuple

    def stage_numbers(self, num_stages: int) -> tuple[int, ...]:
        """The stages that drop pixels. Raises `ConfigError` for one that the host does not have."""
        if self.stages is None:
            return tuple(range(num_stages))
        if self.stages[-1] >= num_stages:
            raise ConfigError(f"stages names stage {self.stages[-1]}, this host has stages 0 to {num_stages - 1}")
        return tuple(self.stages)
