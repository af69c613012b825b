"""What the pruners are swept on: digit canvases for the image ViT (frames), demo clips for VideoMAE-tiny (tubelets)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from timm.models.vision_transformer import VisionTransformer

    from vidprune.proposals.base import Proposal
    from vidprune.video import ViewPlan


@dataclass(frozen=True)
class TestSet:
    """Inputs of the host, as they are given to it, and their labels int64 [n]."""

    inputs: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Task:
    """A host, the proposal that PaPr asks, and data no training has seen.

    Attributes:
        unit: what one input is.
        test_set: the set of a seed; every seed draws its own.
        calibration: inputs of validation digits, on which methods whose cost depends on the input are set.
        data: one sentence on the test sets.
    """

    name: str
    unit: str
    host: VisionTransformer
    proposal: Proposal
    test_set: Callable[[int], TestSet]
    calibration: Callable[[], Tensor]
    data: str


def frames_task(num: int) -> Task:
    """The image ViT on `num` canvases per seed."""
    from digit_canvases import SIDE, heldout_set
    from digit_vit import DigitNetProposal, load_digit_net, load_vit

    def test_set(seed: int) -> TestSet:
        canvases = heldout_set(num, seed)
        return TestSet(canvases.inputs, canvases.labels)

    return Task(
        name="frames",
        unit="image",
        host=load_vit(),
        proposal=DigitNetProposal(load_digit_net(), source="digit_net.safetensors"),
        test_set=test_set,
        calibration=lambda: heldout_set(64, seed=0, split="val").inputs,
        data=f"{num} canvases a seed (tools/digit_canvases.py), {SIDE}x{SIDE}, held-out digits",
    )


def tubelets_task(num: int, clips: Path) -> Task:
    """The demo's VideoMAE-tiny on the centre view of `num` clips per seed, rendered into `clips` if not there."""
    from demo_stream import normalise, validation_set

    from vidprune.config import DEMO, ModelConfig, RunConfig, build_model, demo_file
    from vidprune.inference import plan_for
    from vidprune.proposals import create_proposal

    host = build_model(RunConfig(model=ModelConfig(DEMO), device="cpu"))
    plan = plan_for(host, num_segments=1, num_crops=1)

    def calibration() -> Tensor:
        frames, _, _ = validation_set(32, seed=1)
        return normalise(torch.from_numpy(frames).permute(0, 4, 1, 2, 3).float())  # [B, 3, T, H, W]

    return Task(
        name="tubelets",
        unit="view",
        host=host,
        proposal=create_proposal("x3d_tiny", checkpoint=demo_file("x3d_tiny.safetensors")),
        test_set=lambda seed: _read_clips(clips / f"seed{seed}", seed, num, plan),
        calibration=calibration,
        data=f"{num} H.264 clips a seed (tools/measure_demo.py), centre view, 8x112x112, held-out digits",
    )


def _read_clips(folder: Path, seed: int, num: int, plan: ViewPlan) -> TestSet:
    from render_digits import CRF, write_set

    from vidprune.demo import load_clips
    from vidprune.video import cut_views, read_video

    if not (folder / "masks.npz").exists():  # written last
        write_set(folder, "heldout", num, seed, CRF)
    clips = load_clips(folder)[:num]
    if len(clips) < num:
        raise SystemExit(
            f"{folder} holds {len(clips)} clips, {num} were asked for; lower --clips-per-seed or remove it"
        )
    views = torch.cat([cut_views(read_video(clip.path, plan), plan) for clip in clips])
    return TestSet(views, torch.tensor([clip.label for clip in clips]))
