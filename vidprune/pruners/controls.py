"""The controls that any learned proposal must beat: random, uniform, centre, frame difference, norm. No network."""

from __future__ import annotations

from dataclasses import dataclass

from vidprune.proposals import create_proposal
from vidprune.pruners.base import HostInfo, Pruner, Step
from vidprune.pruners.one_step import NormStep, OneStep
from vidprune.pruners.stage_options import StageOptions
from vidprune.tokens.rounding import check_ratio


@dataclass(frozen=True)
class _Control(Pruner):
    """Keep so many tokens by a rule that nobody trained.

    Args:
        keep_ratio: share of the tokens that stay, in (0, 1].
    """

    keep_ratio: float

    def __post_init__(self) -> None:
        check_ratio("keep_ratio", self.keep_ratio)

    def build(self, host: HostInfo) -> Step:
        return OneStep(create_proposal(self.name), float(self.keep_ratio), host)


@dataclass(frozen=True)
class _PlaceControl(StageOptions, _Control):
    """Scores places whatever is there, so it runs on hosts with stages too."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio("keep_ratio", self.keep_ratio)


@dataclass(frozen=True)
class Random(_PlaceControl):
    """Keep a random subset, the same for the same clip and seed, whatever its batch.

    Args:
        seed: another one draws another subset.
    """

    seed: int = 0
    name = "random"

    def build(self, host: HostInfo) -> Step:
        return OneStep(create_proposal("random", seed=self.seed), float(self.keep_ratio), host)


@dataclass(frozen=True)
class Uniform(_PlaceControl):
    """Keep tokens spread evenly over time and space."""

    name = "uniform"


@dataclass(frozen=True)
class Centre(_PlaceControl):
    """Keep the tokens nearest to the centre of the frame."""

    name = "centre"


@dataclass(frozen=True)
class FrameDifference(_Control):
    """Keep the tokens where pixels change most from frame to frame."""

    name = "frame_difference"


@dataclass(frozen=True)
class Norm(_Control):
    """Keep the tokens whose embedding, position included, has the largest L2 norm."""

    name = "norm"

    def build(self, host: HostInfo) -> Step:
        return NormStep(float(self.keep_ratio), host)
