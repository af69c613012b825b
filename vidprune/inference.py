"""The one main path: a video file in, one prediction out. Used by predict, evaluate and sweep alike."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from vidprune.errors import UnsupportedModelError
from vidprune.labels import default_class_names
from vidprune.models.videomae import VideoMAE
from vidprune.pruning import PrunedViT, PruneTrace, host_of, token_grid
from vidprune.types import VideoPrediction
from vidprune.video import ViewPlan, cut_views, read_video


def predict_video(
    path: str | Path,
    model: nn.Module,
    views: ViewPlan | None = None,
    *,
    class_names: tuple[str, ...] | None = None,
    backend: str = "pyav",
    views_per_batch: int | None = None,
) -> VideoPrediction:
    """Decode `path` once, run `model` on all views, average their softmax.

    Args:
        path: a video file.
        model: a `PrunedViT` or a dense host; the views go to its device, in its dtype.
        views: which clips and crops; by default 5 x 3 views of the `videomae` protocol, sized to the model.
        class_names: one name per class; by default those that belong to the number of classes.
        backend: the decoder.
        views_per_batch: how many views share a forward pass; None runs all at once. Bounds memory.

    Raises:
        VideoDecodeError: if the file yields no frame. A damaged file yields what it has, and the prediction says so.
    """
    plan = views or plan_for(model)
    video = read_video(path, plan, backend=backend)
    parameter = next(model.parameters())
    logits, kept = [], []
    for start in range(0, plan.num_views, views_per_batch or plan.num_views):
        part = slice(start, start + (views_per_batch or plan.num_views))
        clips = cut_views(video, plan, device=parameter.device, dtype=parameter.dtype, views=part)  # [v, 3, T, H, W]
        view_logits, trace = run_views(model, clips)
        logits.append(view_logits)
        if trace is not None and trace.kept_index is not None:
            kept.append(trace.kept_index)
    view_logits = torch.cat(logits).float()  # [V, classes]
    return VideoPrediction(
        path=str(path),
        probs=view_logits.softmax(dim=1).mean(dim=0).cpu().numpy(),
        view_logits=view_logits.cpu().numpy(),
        kept_index=torch.cat(kept).cpu().numpy() if kept else None,
        num_tokens=token_grid(host_of(model)).num_tokens,
        num_errors=video.num_errors,
        num_filled=video.num_filled,
        class_names=class_names or default_class_names(view_logits.shape[1]),
    )


@torch.inference_mode()
def run_views(model: nn.Module, clips: Tensor) -> tuple[Tensor, PruneTrace | None]:
    """Logits [V, classes] of views [V, 3, T, H, W], with what was kept if the model prunes."""
    return model.forward_with_trace(clips) if isinstance(model, PrunedViT) else (model(clips), None)


def plan_for(model: nn.Module, *, num_segments: int = 5, num_crops: int = 3, protocol: str = "videomae") -> ViewPlan:
    """The view plan that fits a model's input: its number of frames, and crops of its size."""
    host = host_of(model)
    if not isinstance(host, VideoMAE):
        raise UnsupportedModelError(f"a view plan needs a model that takes clips, got {type(host).__name__}")
    num_frames, side, _ = host.input_size
    return ViewPlan(
        num_frames=num_frames,
        num_segments=num_segments,
        num_crops=num_crops,
        short_side=side,
        crop_size=side,
        protocol=protocol,
    )
