"""PaPr: the channel mean of a light ConvNet's last features says which tubelets matter.

Source: Mahmud et al., "PaPr: Training-Free One-Step Patch Pruning with Lightweight ConvNets for Faster Inference",
ECCV 2024, section 3 (Eq. 2 for the map, Eq. 3 for the selection), section 5 for videos.
"""

from __future__ import annotations

from dataclasses import dataclass

from vidprune.errors import ConfigError
from vidprune.proposals import create_proposal
from vidprune.proposals.base import Proposal
from vidprune.proposals.shared_crops import SharedCrops
from vidprune.pruners.base import HostInfo, Pruner
from vidprune.pruners.one_step import MassStep, OneStep
from vidprune.pruners.stage_options import StageOptions
from vidprune.tokens.rounding import check_ratio


@dataclass(frozen=True)
class PaPr(StageOptions, Pruner):
    """Keep the tokens that the proposal's map scores highest: a share of them, or as many as hold a share of the map.

    Args:
        keep_ratio: the paper's z in (0, 1]; int(N z) tokens stay. 1 runs no proposal and equals the host bit for bit.
            Either this or `mass`.
        mass: not in the paper: keep the fewest tokens that hold this share of the map's total, in (0, 1], the map
            measured from its own minimum. So each view gets a budget of its own: few tokens where the map is peaked,
            many where it is flat. 1 keeps all.
        min_keep_ratio, max_keep_ratio: with `mass`, the least and the most that may stay, counted as `keep_ratio`.
        proposal: a registered name ("x3d_s", "x3d_m", "slowonly_r50", ...) or a `Proposal` object.
        proposal_checkpoint: weights of a proposal given by name; None means random weights.
        input_treatment: how the proposal sees the clip: "release" as PaPr's code resamples it, "native" as it is,
            "own_norm" re-normalised to the proposal's mean and std, "default" as the proposal recommends.
        align_corners: of the resize to the token grid; True as in PaPr's release.
        shared_crops: run a 3-D network once per temporal segment on the whole frame and cut its map per crop, where
            the paper runs it once per view; on clips alone, without their video, nothing changes. See `SharedCrops`.
        stages, keep_shortcut: for ConvNeXt and Swin alone, see `StageOptions`.
    """

    keep_ratio: float | None = None
    proposal: str | Proposal = "x3d_s"
    proposal_checkpoint: str | None = None
    input_treatment: str = "default"
    align_corners: bool = True
    mass: float | None = None
    min_keep_ratio: float | None = None
    max_keep_ratio: float | None = None
    shared_crops: bool = False
    name = "papr"

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.keep_ratio is None) == (self.mass is None):
            got = "neither" if self.mass is None else f"keep_ratio={self.keep_ratio!r} and mass={self.mass!r}"
            raise ConfigError(f"papr takes either keep_ratio, such as 0.45, or mass, such as 0.6; got {got}")
        for name in ("keep_ratio", "mass", "min_keep_ratio", "max_keep_ratio"):
            if getattr(self, name) is not None:
                check_ratio(name, getattr(self, name))
        bounds = (self.min_keep_ratio, self.max_keep_ratio)
        if self.mass is None and bounds != (None, None):
            raise ConfigError("min_keep_ratio and max_keep_ratio go with mass; a keep_ratio has no bounds")
        if (self.min_keep_ratio or 0.0) > (self.max_keep_ratio or 1.0):
            raise ConfigError(f"min_keep_ratio {bounds[0]} is above max_keep_ratio {bounds[1]}")

    def build(self, host: HostInfo) -> OneStep | MassStep:
        proposal = self._make_proposal()
        if self.shared_crops:
            proposal = SharedCrops(proposal)
        bounds = (self.min_keep_ratio, self.max_keep_ratio)
        if self.mass is None or (self.mass == 1.0 and bounds[1] is None):  # all the mass is every token
            return OneStep(proposal, float(self.keep_ratio or 1.0), host, self.align_corners)
        return MassStep(proposal, float(self.mass), host, bounds, self.align_corners)

    def _make_proposal(self) -> Proposal:
        if isinstance(self.proposal, Proposal):
            if self.proposal_checkpoint is not None:
                raise ConfigError("proposal_checkpoint goes with a proposal's name; this proposal is already an object")
            return self.proposal
        return create_proposal(self.proposal, checkpoint=self.proposal_checkpoint, input_treatment=self.input_treatment)
