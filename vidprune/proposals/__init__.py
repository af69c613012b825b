"""Proposals: what says where the tokens that matter are. Networks (X3D, SlowOnly) and controls, by name."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.errors import ConfigError, unknown_name
from vidprune.registry import Registry

if TYPE_CHECKING:
    from vidprune.proposals.base import Proposal

PROPOSALS = Registry("proposal", "vidprune.proposals")
_NETS = "vidprune.proposals.nets3d"
_NETS_2D = "vidprune.proposals.nets2d"
_CAM = "vidprune.proposals.cam"
_CONTROLS = "vidprune.proposals.controls"
PROPOSALS.register("x3d_s", f"{_NETS}:x3d_s", "X3D-S features, PaPr's default for video")
PROPOSALS.register("x3d_m", f"{_NETS}:x3d_m", "X3D-M features: X3D-S's network with other weights")
PROPOSALS.register("x3d_tiny", f"{_NETS}:x3d_tiny", "X3D-tiny features, the demo's own network")
PROPOSALS.register("slowonly_r50", f"{_NETS}:slowonly_r50", "SlowOnly ResNet-50 features (8x8)")
PROPOSALS.register("slowonly_r101", f"{_NETS}:slowonly_r101", "SlowOnly ResNet-101 features (8x8)")
PROPOSALS.register(
    "mobileone_s0", f"{_NETS_2D}:mobileone_s0", "MobileOne-S0 features per frame, PaPr's default for images"
)
PROPOSALS.register("resnet18", f"{_NETS_2D}:resnet18", "ResNet-18 features per frame")
PROPOSALS.register("resnet50", f"{_NETS_2D}:resnet50", "ResNet-50 features per frame")
PROPOSALS.register("efficientnet_lite0", f"{_NETS_2D}:efficientnet_lite0", "EfficientNet-Lite0 features per frame")
PROPOSALS.register("timm", f"{_NETS_2D}:timm_proposal", "timm:NAME: features per frame of any ConvNet of timm")
PROPOSALS.register("cam", f"{_CAM}:cam", "cam:NAME: CAM of a timm ConvNet (mobileone_s0)")
PROPOSALS.register("fc_weighted", f"{_CAM}:fc_weighted", "fc_weighted:NAME: features weighted by the whole last layer")
PROPOSALS.register("gradcam", f"{_CAM}:gradcam", "gradcam:NAME: Grad-CAM of a timm ConvNet or of x3d_*")
PROPOSALS.register("scorecam", f"{_CAM}:scorecam", "scorecam:NAME: Score-CAM, one pass per channel")
PROPOSALS.register("random", f"{_CONTROLS}:RandomProposal", "random subset, fixed by seed and clip")
PROPOSALS.register("uniform", f"{_CONTROLS}:UniformProposal", "evenly spread subset, the same for every clip")
PROPOSALS.register("centre", f"{_CONTROLS}:CentreProposal", "tokens nearest to the centre of the frame")
PROPOSALS.register(
    "frame_difference", f"{_CONTROLS}:FrameDifferenceProposal", "tokens whose pixels change most from frame to frame"
)
PROPOSALS.register(
    "codec_motion",
    "vidprune.proposals.codec_motion:CodecMotionProposal",
    "tokens that move against the camera, by the file's own motion vectors",
)


def create_proposal(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    input_treatment: str = "default",
    seed: int = 0,
    **options: Any,
) -> Proposal:
    """Make the proposal registered as `name`.

    Args:
        name: one of `PROPOSALS.names()`; "timm:NAME", "gradcam:NAME", ... say which network the proposal runs, its
            option `net`. Other packages add theirs under the entry point group `vidprune.proposals`: a callable that
            returns a `Proposal` and takes, by keyword, those of the arguments below that it declares.
        checkpoint: weight file; None means random weights, drawn from `seed`.
        input_treatment: "release" resamples the clip as PaPr's code does (x3d_s to 8x160x160, SlowOnly to 8x224x224,
            x3d_m to 8x224x224 unless the side is 224 already); "native" takes it as it is; "own_norm" is native and
            re-normalised to the network's own mean and std; "default" is "release".
        seed: of random weights, and of `random`'s choice.
        options: the proposal's own, e.g. `own_norm=True` beside "release".

    Raises:
        UnknownNameError: with the nearest names.
        ConfigError: for an argument that this proposal does not take.
        CheckpointError: for weights that do not fit.
    """
    family, colon, net = name.partition(":")
    if colon and name not in PROPOSALS:
        return create_proposal(
            family, checkpoint=checkpoint, input_treatment=input_treatment, seed=seed, **options, net=net
        )
    factory = PROPOSALS.get(name)
    accepted = inspect.signature(factory).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted.values())
    given = {"checkpoint": (checkpoint, None), "input_treatment": (input_treatment, "default")}
    for argument, (value, default) in given.items():
        if takes_any or argument in accepted:
            options[argument] = value
        elif value != default:
            raise ConfigError(f"proposal {name!r} takes no {argument}, got {value!r}")
    if takes_any or "seed" in accepted:  # without randomness any seed is as good as another
        options["seed"] = seed
    for option in options:
        if not takes_any and option not in accepted:
            raise ConfigError(str(unknown_name(f"option of proposal {name!r}", option, accepted)))
    proposal = factory(**options)
    from vidprune.proposals.base import Proposal

    if not isinstance(proposal, Proposal):
        made = type(proposal).__name__
        raise ConfigError(f"proposal {name!r} made an object of type {made}, not a vidprune.proposals.base.Proposal")
    proposal.description = proposal.description or PROPOSALS.describe(name)
    proposal.eval()  # a factory of another package may have left its batch norms in training mode
    return proposal
