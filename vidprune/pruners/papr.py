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
from vidprune.pruners.one_step import OneStep
from vidprune.pruners.stage_options import StageOptions
from vidprune.tokens.rounding import check_ratio


@dataclass(frozen=True)
class PaPr(StageOptions, Pruner):
    """Keep the share `keep_ratio` of the tokens that the proposal's map scores highest.

    Args:
        keep_ratio: the paper's z in (0, 1]; int(N z) tokens stay. 1 runs no proposal and equals the host bit for bit.
        proposal: a registered name ("x3d_s", "x3d_m", "slowonly_r50", ...) or a `Proposal` object.
        proposal_checkpoint: weights of a proposal given by name; None means random weights.
        input_treatment: how the proposal sees the clip: "release" as PaPr's code resamples it, "native" as it is,
            "own_norm" re-normalised to the proposal's mean and std, "default" as the proposal recommends.
        align_corners: of the resize to the token grid; True as in PaPr's release.
        shared_crops: run a 3-D network once per temporal segment on the whole frame and cut its map per crop, where
            the paper runs it once per view; on clips alone, without their video, nothing changes. See `SharedCrops`.
        stages, keep_shortcut: for ConvNeXt and Swin alone, see `StageOptions`.
    """

    keep_ratio: float
    proposal: str | Proposal = "x3d_s"
    proposal_checkpoint: str | None = None
    input_treatment: str = "default"
    align_corners: bool = True
    shared_crops: bool = False
    name = "papr"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ratio("keep_ratio", self.keep_ratio)

    def build(self, host: HostInfo) -> OneStep:
        if isinstance(self.proposal, Proposal):
            if self.proposal_checkpoint is not None:
                raise ConfigError("proposal_checkpoint goes with a proposal's name; this proposal is already an object")
            proposal = self.proposal
        else:
            proposal = create_proposal(
                self.proposal, checkpoint=self.proposal_checkpoint, input_treatment=self.input_treatment
            )
        if self.shared_crops:
            proposal = SharedCrops(proposal)
        return OneStep(proposal, float(self.keep_ratio), host, self.align_corners)
