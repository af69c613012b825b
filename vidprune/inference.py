"""The one main path: a video file in, one prediction out. Used by predict, evaluate and sweep alike."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from vidprune.errors import UnsupportedModelError
from vidprune.evaluation.metrics import average_views
from vidprune.labels import default_class_names
from vidprune.models.frame_batch import FrameBatch
from vidprune.models.videomae import VideoMAE
from vidprune.proposals.base import VideoProposal
from vidprune.pruning import PruneTrace, host_of, is_pruned, token_grid
from vidprune.tokens.packed import pad_index
from vidprune.types import VideoFrames, VideoPrediction
from vidprune.video import ViewPlan, check_motion_backend, cut_views, read_video


def predict_video(
    path: str | Path,
    model: nn.Module,
    views: ViewPlan | None = None,
    *,
    class_names: tuple[str, ...] | None = None,
    backend: str = "pyav",
    colour: str = "rgb",
    views_per_batch: int | None = None,
) -> VideoPrediction:
    """Decode `path` once, run `model` on all views, average their softmax.

    Args:
        path: a video file.
        model: a `PrunedViT`, a `FrameBatch` or a dense host; the views go to its device, in its dtype.
        views: which clips and crops; by default 5 x 3 views of the `videomae` protocol, sized to the model.
        class_names: one name per class; by default those that belong to the number of classes.
        backend: the decoder.
        colour: "rgb", or "yuv" to make RGB on the device, see `vidprune.video.read_frames`.
        views_per_batch: how many views share a forward pass; None runs all at once. Bounds memory.

    Raises:
        VideoDecodeError: if the file yields no frame. A damaged file yields what it has, and the prediction says so.
    """
    plan = views or plan_for(model)
    video = reader_for([model], plan, backend=backend, colour=colour)(path)
    (output,) = predict_views([video], model, plan, views_per_batch=views_per_batch)
    return VideoPrediction(
        path=str(path),
        probs=average_views(output.logits).numpy(),
        view_logits=output.logits.numpy(),
        kept_index=None if output.kept_index is None else output.kept_index.numpy(),
        num_tokens=token_grid(model).num_tokens,
        num_errors=video.num_errors,
        num_filled=video.num_filled,
        class_names=class_names or default_class_names(output.logits.shape[1]),
    )


@dataclass(frozen=True)
class ViewOutput:
    """What a model made of some views: logits float32 [V, classes], kept_index int64 [V, K] or None.

    Where views keep different numbers of tokens, their rows of `kept_index` are padded with -1.
    """

    logits: Tensor
    kept_index: Tensor | None

    def to_host(self, *, wait: bool = True) -> ViewOutput:
        """The same in the host's memory. Without `wait` the copies are only queued, to be read when they are done."""
        logits, kept = (
            None if value is None else value.to("cpu", non_blocking=not wait)
            for value in (self.logits, self.kept_index)
        )
        assert logits is not None
        return ViewOutput(logits, kept)

    def split(self, num_views: int) -> list[ViewOutput]:
        """One part for every `num_views` views, in order."""
        logits = self.logits.split(num_views)
        kept = [None] * len(logits) if self.kept_index is None else self.kept_index.split(num_views)
        return [ViewOutput(*pair) for pair in zip(logits, kept, strict=True)]

    def mean_kept(self) -> int | None:
        """Tokens per view that reach the head, the mean over the views, rounded; None if all were kept."""
        return None if self.kept_index is None else round((self.kept_index >= 0).sum(dim=1).double().mean().item())


def predict_views(
    videos: Sequence[VideoFrames], model: nn.Module, plan: ViewPlan, *, views_per_batch: int | None = None
) -> list[ViewOutput]:
    """One output per decoded video, in the host's memory; arguments as those of `run_videos`."""
    return run_videos(videos, model, plan, views_per_batch=views_per_batch).to_host().split(plan.num_views)


def run_videos(
    videos: Sequence[VideoFrames], model: nn.Module, plan: ViewPlan, *, views_per_batch: int | None = None
) -> ViewOutput:
    """Run `model` on all views of decoded videos, in order; a batch may hold views of several of them.

    A GPU may still be at it when this returns: what comes back is on the model's device.

    Args:
        views_per_batch: how many views share a forward pass; None runs all of all videos at once.
    """
    return run_batches(model, _batches(videos, model, plan, views_per_batch))


def run_batches(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor | None]]) -> ViewOutput:
    """All views of `batches` through `model`, one batch at a time: clips [v, 3, T, H, W], and their proposal maps.

    As in `run_videos`, what comes back is on the model's device.
    """
    logits, kept = [], []
    for clips, proposal_map in batches:
        view_logits, trace = run_views(model, clips, proposal_map)
        logits.append(view_logits.float())
        if trace is not None and trace.kept_index is not None:
            kept.append(trace.kept_index)
    return ViewOutput(torch.cat(logits), pad_index(kept) if kept else None)


def _batches(
    videos: Sequence[VideoFrames], model: nn.Module, plan: ViewPlan, views_per_batch: int | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The views of all videos, `views_per_batch` at a time, each batch cut when it is asked for."""
    maps = video_maps(videos, model, plan)
    parameter = next(model.parameters())
    queue = [(video, view) for video in range(len(videos)) for view in range(plan.num_views)]
    for start in range(0, len(queue), views_per_batch or len(queue)):
        batch = queue[start : start + (views_per_batch or len(queue))]
        parts = []
        for video, group in itertools.groupby(batch, key=lambda item: item[0]):
            views = [view for _, view in group]  # consecutive
            part = slice(views[0], views[-1] + 1)
            parts.append(cut_views(videos[video], plan, device=parameter.device, dtype=parameter.dtype, views=part))
        clips = parts[0] if len(parts) == 1 else torch.cat(parts)  # [v, 3, T, H, W]
        yield clips, None if maps is None else torch.stack([maps[video][view] for video, view in batch])


def reader_for(
    models: Sequence[nn.Module], plan: ViewPlan, *, backend: str = "pyav", colour: str = "rgb"
) -> partial[VideoFrames]:
    """How to read a file for `models`: with its motion vectors where a proposal of theirs needs them. Picklable.

    Raises:
        ConfigError: such a proposal with a backend that hands out none.
    """
    proposals = [model.proposal for model in models if is_pruned(model)]
    motion = any(isinstance(proposal, VideoProposal) and proposal.needs_motion for proposal in proposals)
    if motion:
        check_motion_backend(backend)
    return partial(read_video, plan=plan, backend=backend, motion=motion, colour=colour)


@torch.inference_mode()
def video_maps(videos: Sequence[VideoFrames], model: nn.Module, plan: ViewPlan) -> list[Tensor] | None:
    """Each video's proposal maps [V, t', h', w'] where the model asks a proposal that looks at whole videos."""
    proposal = model.proposal if is_pruned(model) else None
    if not isinstance(proposal, VideoProposal):
        return None
    like = next(model.parameters())
    grid = token_grid(model)
    return [proposal.view_maps(video, plan, grid=grid, device=like.device, dtype=like.dtype) for video in videos]


@torch.inference_mode()
def run_views(model: nn.Module, clips: Tensor, proposal_map: Tensor | None = None) -> tuple[Tensor, PruneTrace | None]:
    """Logits [V, classes] of views [V, 3, T, H, W], with what was kept if the model prunes.

    A `proposal_map` [V, t', h', w'] takes the place of the proposal's own pass.
    """
    if is_pruned(model):
        return model.forward_with_trace(clips, proposal_map)
    return model(clips), None


def plan_for(model: nn.Module, *, num_segments: int = 5, num_crops: int = 3, protocol: str = "videomae") -> ViewPlan:
    """The view plan that fits a model's input: its number of frames, and crops of its size."""
    takes_clips = model if isinstance(model, FrameBatch) else host_of(model)
    if not isinstance(takes_clips, VideoMAE | FrameBatch):
        raise UnsupportedModelError(
            f"a view plan needs a model that takes clips, got {type(takes_clips).__name__}; an image model takes them "
            "as vidprune.FrameBatch(model), by name frames/vit_base_patch16_224"
        )
    num_frames, side, _ = takes_clips.input_size
    return ViewPlan(
        num_frames=num_frames,
        num_segments=num_segments,
        num_crops=num_crops,
        short_side=side,
        crop_size=side,
        protocol=protocol,
    )
