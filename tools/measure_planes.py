"""What the planes path changes: in predictions, of the shipped model on the shipped clips, and in the work per frame.

    python tools/measure_planes.py --out results/planes_demo.csv
    python tools/measure_planes.py --files CLIP... --out results/planes_frames.csv

What it changes in decoding as a whole, `vidprune bench decode` measures.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from torch import nn

from vidprune.config import DEMO, ModelConfig, RunConfig, build_model
from vidprune.demo import DemoClip, load_clips
from vidprune.inference import plan_for, predict_video
from vidprune.profiling.measured_csv import write_measured
from vidprune.profiling.timing import machine, time_in_turn
from vidprune.types import VideoPrediction
from vidprune.video import ViewPlan, cut_views, read_video
from vidprune.video.buffer import FrameBuffer
from vidprune.video.colour import colour_of, planes_of, to_rgb
from vidprune.video.request import FrameRequest

NUM_FRAMES = 60

METHODS = ({"name": "dense"}, {"name": "papr", "keep_ratio": 0.5}, {"name": "papr", "keep_ratio": 0.3})


@dataclass(frozen=True)
class PlanesRow:
    """One model over all clips, 5 x 3 views each.

    Attributes:
        top1_rgb, top1_planes: accuracy in per cent by each way.
        num_other_class: clips whose most probable class differs.
        mean_logit_gap, logit_spread: mean difference of a view's logit, and the logits' standard deviation beside it.
        max_prob_gap: largest difference of a clip's averaged probability.
        kept_overlap: share of a view's kept tokens that both ways keep, the mean; None for dense.
    """

    method: str
    num_clips: int
    top1_rgb: float
    top1_planes: float
    num_other_class: int
    mean_logit_gap: float
    logit_spread: float
    max_prob_gap: float
    kept_overlap: float | None


def compare(name: str, model: nn.Module, clips: list[DemoClip]) -> PlanesRow:
    """Predict every clip both ways."""
    plan = plan_for(model)
    rgb, planes = (
        [predict_video(clip.path, model, plan, colour=colour) for clip in clips] for colour in ("rgb", "yuv")
    )
    labels = np.array([clip.label for clip in clips])
    classes = [np.array([prediction.probs.argmax() for prediction in one]) for one in (rgb, planes)]
    logits = [np.stack([prediction.view_logits for prediction in one]) for one in (rgb, planes)]
    probs = [np.stack([prediction.probs for prediction in one]) for one in (rgb, planes)]
    return PlanesRow(
        method=name,
        num_clips=len(clips),
        top1_rgb=100 * float((classes[0] == labels).mean()),
        top1_planes=100 * float((classes[1] == labels).mean()),
        num_other_class=int((classes[0] != classes[1]).sum()),
        mean_logit_gap=float(np.abs(logits[0] - logits[1]).mean()),
        logit_spread=float(logits[0].std()),
        max_prob_gap=float(np.abs(probs[0] - probs[1]).max()),
        kept_overlap=kept_overlap(rgb, planes),
    )


def kept_overlap(first: list[VideoPrediction], second: list[VideoPrediction]) -> float | None:
    """Mean share of the kept tokens that both have in common, over all views."""
    shares = []
    for one, other in zip(first, second, strict=True):
        if one.kept_index is None or other.kept_index is None:
            return None
        shares += [len(np.intersect1d(a, b)) / len(a) for a, b in zip(one.kept_index, other.kept_index, strict=True)]
    return float(np.mean(shares))


@dataclass(frozen=True)
class FramesRow:
    """One file, its first `NUM_FRAMES` frames, short side 224.

    Attributes:
        rgb_us, planes_us: CPU time to convert and resize one decoded frame, or to resize its planes.
        views_rgb_ms, views_planes_ms: CPU time to cut and normalise all 15 views on the CPU.
        gap, gap_exact: mean difference of RGB levels from the usual way's, and without taking FFmpeg's cut-off away.
    """

    file: str
    size: str
    rgb_us: float
    planes_us: float
    views_rgb_ms: float
    views_planes_ms: float
    gap: float
    gap_exact: float


def measure_frames(path: Path, rounds: int = 9) -> FramesRow:
    """Each way in turn, medians."""
    with av.open(str(path)) as container:
        frames = list(itertools.islice(container.decode(video=0), NUM_FRAMES))
    request, converter = FrameRequest(range(len(frames)), short_side=224), VideoReformatter()

    def store_rgb() -> None:
        buffer = FrameBuffer(np.arange(len(frames)), request)
        for row, frame in enumerate(frames):
            buffer.put(row, converter.reformat(frame, format="rgb24", threads=1).to_ndarray())

    def store_planes() -> None:
        buffer = FrameBuffer(np.arange(len(frames)), request)
        for row, frame in enumerate(frames):
            buffer.put_planes(row, planes_of(frame), colour_of(frame))

    plan = ViewPlan()
    rgb, planes = (read_video(path, plan, colour=colour) for colour in ("rgb", "yuv"))
    ways = {"rgb": store_rgb, "planes": store_planes}
    ways |= {"views rgb": lambda: cut_views(rgb, plan), "views planes": lambda: cut_views(planes, plan)}
    seconds = time_in_turn(ways, rounds=rounds, clock=time.process_time)
    spent = {name: statistics.median(times) for name, times in seconds.items()}
    levels = to_rgb(torch.from_numpy(planes.frames), planes.colour, planes.size)  # [3, F, H, W]
    difference = levels - torch.from_numpy(rgb.frames).movedim(-1, 0)
    cut_off = torch.tensor((0.5, 1.0, 0.5) if planes.colour.endswith("-full") else (1.0, 1.4, 1.0)).view(3, 1, 1, 1)
    return FramesRow(
        file=path.name,
        size=f"{frames[0].width}x{frames[0].height}",
        rgb_us=1e6 * spent["rgb"] / len(frames),
        planes_us=1e6 * spent["planes"] / len(frames),
        views_rgb_ms=1e3 * spent["views rgb"],
        views_planes_ms=1e3 * spent["views planes"],
        gap=float(difference.abs().mean()),
        gap_exact=float((difference + cut_off).abs().mean()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--num-clips", type=int, default=None)
    parser.add_argument("--files", type=Path, nargs="+", help="measure the work per frame of these instead")
    arguments = parser.parse_args()
    if arguments.files:
        rows = [measure_frames(path) for path in arguments.files]
    else:
        rows = compare_demo(load_clips()[: arguments.num_clips])
    write_measured(arguments.out, rows, command=["python", *sys.argv], machine=machine("cpu"))


def compare_demo(clips: list[DemoClip]) -> list[PlanesRow]:
    """One row per method."""
    rows = []
    for method in METHODS:
        model = build_model(RunConfig(model=ModelConfig(DEMO), method=method, device="cpu"))
        rows.append(compare(" ".join(str(value) for value in method.values()), model, clips))
        print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
