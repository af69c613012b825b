"""From a video file and a model to the pictures of what was kept: one forward pass, the same as a prediction's."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from vidprune.inference import reader_for, run_views, video_maps
from vidprune.labels import default_class_names
from vidprune.pruning import host_of, is_pruned, token_grid
from vidprune.types import VideoFrames
from vidprune.video import ViewPlan, cut_views
from vidprune.video.colour import rgb_frames
from vidprune.visualization.output import save_picture
from vidprune.visualization.overlay import overlay_video
from vidprune.visualization.sheet import contact_sheet
from vidprune.visualization.view import Caption, ViewPicture, keep_mask


@dataclass(frozen=True)
class WrittenPictures:
    """The two files made of one video."""

    sheet: Path
    overlay: Path


def picture_video(
    path: str | Path,
    model: nn.Module,
    plan: ViewPlan,
    folder: str | Path,
    *,
    class_names: tuple[str, ...] | None = None,
    model_name: str = "",
    stem: str | None = None,
    backend: str = "pyav",
    colour: str = "rgb",
) -> WrittenPictures:
    """Write a contact sheet (middle segment) and an overlay video (all segments) of the centre crop of a video.

    Args:
        path: a video file, decoded once.
        model: a `PrunedViT`, or a dense host, whose every token is then shown as kept.
        plan: its segments are used, its crops replaced by the centre one.
        folder: where `STEM.png` and `STEM.mp4` go; created if need be.
        stem: by default the video's name without its suffix.
        backend, colour: how the model gets its frames, see `vidprune.video.read_frames`; pictures are RGB all the same.
    """
    shown = _look(path, model, plan, class_names, model_name, backend, colour)
    stem = stem or Path(path).stem
    sheet = save_picture(shown.sheet(), Path(folder) / f"{stem}.png")
    caption = dataclasses.replace(shown.caption, view=f"{len(shown.views)} segments, centre crop")
    fps = min(60.0, max(1.0, shown.fps))  # the speed of life
    return WrittenPictures(sheet, overlay_video(Path(folder) / f"{stem}.mp4", shown.views, caption, fps=fps))


def sheet_of_video(
    path: str | Path,
    model: nn.Module,
    plan: ViewPlan,
    *,
    class_names: tuple[str, ...] | None = None,
    model_name: str = "",
    backend: str = "pyav",
    colour: str = "rgb",
) -> Image.Image:
    """The contact sheet of `picture_video` alone, unwritten; arguments as there."""
    return _look(path, model, plan, class_names, model_name, backend, colour).sheet()


@dataclass(frozen=True)
class _Shown:
    """Every segment's centre crop with what was kept of it, the words of the middle one, and frames per second."""

    views: list[ViewPicture]
    caption: Caption
    fps: float

    def sheet(self) -> Image.Image:
        return contact_sheet(self.views[len(self.views) // 2], self.caption)


def _look(
    path: str | Path,
    model: nn.Module,
    plan: ViewPlan,
    class_names: tuple[str, ...] | None,
    model_name: str,
    backend: str,
    colour: str,
) -> _Shown:
    """Decode a video and run the model on its centre crops."""
    plan = dataclasses.replace(plan, num_crops=1)
    video = reader_for([model], plan, backend=backend, colour=colour)(path)
    parameter = next(model.parameters())
    clips = cut_views(video, plan, device=parameter.device, dtype=parameter.dtype)  # [S, 3, T, H, W]
    maps = video_maps([video], model, plan)
    logits, trace = run_views(model, clips, None if maps is None else maps[0])
    probs = logits.float().softmax(dim=1).mean(dim=0).cpu()
    best = int(probs.argmax())

    host = host_of(model)
    views = []
    for segment in range(plan.num_segments):
        kept, proposal_map = np.ones(token_grid(model).shape, dtype=bool), None
        if trace is not None and trace.kept_index is not None:
            row = trace.kept_index[segment].cpu().numpy()
            kept = keep_mask(row[row >= 0], trace.grid)  # padded with -1 where views keep different numbers
        if trace is not None and trace.proposal_map is not None:
            proposal_map = trace.proposal_map[segment].float().cpu().numpy()
        frames, numbers = _view_pixels(video, plan, segment)
        views.append(ViewPicture(frames, kept, proposal_map, numbers))

    caption = Caption(
        file=Path(path).name,
        model=model_name,
        method=_method_words(model),
        view=f"segment {plan.num_segments // 2 + 1} of {plan.num_segments}, centre crop",
        keep_ratio=getattr(model.methods[0], "keep_ratio", None) if is_pruned(model) else None,
        prediction=(class_names or default_class_names(len(probs)))[best],
        prob=float(probs[best]),
        random_weights=getattr(host, "checkpoint_source", None) is None,
    )
    return _Shown(views, caption, (video.fps or 30.0) / plan.frame_stride)


def _method_words(model: nn.Module) -> str:
    """ "dense", "tome", "papr, x3d_s"."""
    if not is_pruned(model):
        return "dense"
    proposal = getattr(model.steps[0], "proposal", None)
    return model.methods[0].name + ("" if proposal is None else f", {proposal.name}")


def _view_pixels(video: VideoFrames, plan: ViewPlan, segment: int) -> tuple[np.ndarray, list[int]]:
    """uint8 [T, H, W, 3] of the centre crop of one segment, and its source frame numbers."""
    numbers = plan.frame_indices(video.num_frames_total)[segment]  # [T]
    rows = np.searchsorted(video.frame_numbers, numbers)
    top, left = plan.crop_offsets(*video.size)[0]
    size = plan.crop_size
    frames = rgb_frames(video, rows)
    return frames[:, top : top + size, left : left + size], [int(n) for n in numbers]
