"""Image models on clips: every frame is one image, and a clip's logits are the mean over its frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.models.videomae import VideoMAE
from vidprune.proposals.base import Proposal
from vidprune.proposals.treatment import renormalisation
from vidprune.pruners.base import Pruner
from vidprune.pruners.clip_trace import trace_of_clips
from vidprune.pruners.shared_budget import SharedBudget, SharedBudgetStep
from vidprune.pruners.trace import PruneTrace
from vidprune.tokens.resize import maps_of_frames
from vidprune.types import IMAGENET_MEAN, IMAGENET_STD, TokenGrid

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)

AVERAGES = ("logits", "probs")
BUDGETS = ("frame", "clip")


class FrameBatch(nn.Module):
    """An image ViT, pruned or not, on clips [B, 3, T, H, W]: B * T images at once, then the mean over T.

    Clips come in ImageNet's normalisation, as everywhere here; frames are re-normalised to the mean and std that the
    image model was trained with (timm's `pretrained_cfg`). A proposal sees the clip as it came, once: a video network
    marks places in all frames together, an image network frame by frame, a control such as frame difference across
    frames. Its map is cut into one per frame.

    `prune(FrameBatch(vit), method)` and `FrameBatch(prune(vit, method))` are the same model, with a budget per frame;
    a budget shared over a clip needs the former.

    Args:
        model: a timm `VisionTransformer` that takes images, or a `PrunedViT` over one.
        frames_per_clip: T.
        average: "logits", or "probs" for the mean of the frames' softmax, returned as its logarithm.
        budget: "frame", every frame keeps the same number of tokens; "clip", the frames of a clip share what they keep,
            at least one token each, so that busy frames may keep more than quiet ones.

    Raises:
        UnsupportedModelError: for a model that is no such thing.
        ConfigError: for a setting out of range.
    """

    norm_scale: Tensor
    norm_shift: Tensor

    def __init__(
        self, model: nn.Module, frames_per_clip: int = 8, *, average: str = "logits", budget: str = "frame"
    ) -> None:
        super().__init__()
        _check_settings(frames_per_clip, average, budget)
        self.model: Any = model
        self.frames_per_clip = frames_per_clip
        self.average = average
        self.budget = budget
        self.is_pruned = hasattr(model, "forward_with_trace")
        if not isinstance(self.host, VisionTransformer) or isinstance(self.host, VideoMAE):
            takes = "takes clips already" if isinstance(self.host, VideoMAE) else "is not one"
            raise UnsupportedModelError(
                f"FrameBatch takes a timm VisionTransformer for images, or a pruned one; {type(self.host).__name__} "
                f"{takes}; create one with timm.create_model or vidprune.create_model('timm/vit_base_patch16_224')"
            )
        shares = any(isinstance(step, SharedBudgetStep) for step in self.steps)
        if self.is_pruned and shares != (budget == "clip"):
            raise ConfigError(
                "a budget is shared by pruning the frame batch, as in prune(FrameBatch(vit, budget='clip'), method): "
                f"budget {budget!r} does not fit the pruned model"
            )
        config: Any = getattr(self.host, "pretrained_cfg", None) or {}
        mean, std = config.get("mean", IMAGENET_MEAN), config.get("std", IMAGENET_STD)
        scale, shift = renormalisation(mean, std)
        self.own_norm = (tuple(mean), tuple(std)) != (IMAGENET_MEAN, IMAGENET_STD)
        self.register_buffer("norm_scale", scale.to(next(model.parameters())), persistent=False)
        self.register_buffer("norm_shift", shift.to(next(model.parameters())), persistent=False)
        self.training = model.training  # wrapping must not switch the model's mode

    @property
    def host(self) -> VisionTransformer:
        """The image model that classifies."""
        return self.model.host if self.is_pruned else self.model

    @property
    def token_grid(self) -> TokenGrid:
        """Tokens of a clip before pruning: its frames' grids, one after the other."""
        return TokenGrid(self.frames_per_clip, *self.host.patch_embed.grid_size)

    @property
    def frame_grid(self) -> TokenGrid:
        """Tokens of one frame before pruning."""
        return TokenGrid(1, *self.host.patch_embed.grid_size)

    @property
    def input_size(self) -> tuple[int, int, int]:
        """(T, H, W) of the clips it takes."""
        return (self.frames_per_clip, *self.host.patch_embed.img_size)

    @property
    def num_classes(self) -> int:
        return int(self.host.num_classes)

    @property
    def checkpoint_source(self) -> str | None:
        """The image model's weight file, None for random weights."""
        return getattr(self.host, "checkpoint_source", None)

    def methods_of_frames(self, methods: Sequence[Pruner]) -> list[Pruner]:
        """The methods as the image model needs them: with a budget shared over a clip, the first one chooses for it."""
        if self.budget == "frame":
            return list(methods)
        return [SharedBudget(methods[0], self.frames_per_clip), *methods[1:]]

    def over(self, model: nn.Module) -> FrameBatch:
        """The same settings over another model."""
        return FrameBatch(model, self.frames_per_clip, average=self.average, budget=self.budget)

    def forward(self, clips: Tensor, proposal_map: Tensor | None = None) -> Tensor:
        """Logits [B, classes] of clips [B, 3, T, H, W].

        A `proposal_map` [B, t', h', w'] takes the place of the proposal's own pass.
        """
        self._check(clips)
        frames = self._frames(clips)
        if not self.is_pruned:
            return self._mean(self.model(frames))
        proposal_map = self._map(clips, proposal_map)
        return self._mean(self.model(frames, self._frame_maps(proposal_map)))

    def forward_with_trace(self, clips: Tensor, proposal_map: Tensor | None = None) -> tuple[Tensor, PruneTrace]:
        """Logits [B, classes] and the trace of the clips, on the grid (T, h, w); only over a pruned model."""
        self._check(clips)
        if not self.is_pruned:
            raise UnsupportedModelError("nothing is pruned here; use prune(FrameBatch(model), method), or forward")
        proposal_map = self._map(clips, proposal_map)
        logits, trace = self.model.forward_with_trace(self._frames(clips), self._frame_maps(proposal_map))
        return self._mean(logits), trace_of_clips(trace, self.frames_per_clip, proposal_map)

    def _check(self, clips: Tensor) -> None:
        _, height, width = self.input_size
        size = ["H", "W"] if self.host.dynamic_img_size else [height, width]
        fits = clips.ndim == 5 and clips.shape[2] == self.frames_per_clip
        if not fits or (not self.host.dynamic_img_size and list(clips.shape[3:]) != size):
            raise ConfigError(
                f"this frame batch takes clips [B, 3, {self.frames_per_clip}, {size[0]}, {size[1]}], got "
                f"{list(clips.shape)}; an image is a clip with T = 1, and T is set by frames_per_clip"
            )

    def _frames(self, clips: Tensor) -> Tensor:
        if self.own_norm:
            clips = clips * self.norm_scale + self.norm_shift
        return clips.transpose(1, 2).flatten(0, 1)  # [B, 3, T, H, W] -> [B * T, 3, H, W]

    def _map(self, clips: Tensor, given: Tensor | None) -> Tensor | None:
        """The clips' proposal map [B, t', h', w']; None where the model asks none."""
        proposal = self.proposal
        if given is not None or proposal is None:
            return given
        with torch.no_grad():
            return proposal(clips, grid=self._grid_of(clips))

    def _grid_of(self, clips: Tensor) -> TokenGrid:
        """The token grid of these clips, which on a host of dynamic size may have another one than it was built for."""
        if not self.host.dynamic_img_size:
            return self.token_grid
        return TokenGrid(self.frames_per_clip, *self.host.patch_embed.dynamic_feat_size(tuple(clips.shape[3:])))

    def _frame_maps(self, proposal_map: Tensor | None) -> Tensor | None:
        return None if proposal_map is None else maps_of_frames(proposal_map, self.frames_per_clip)

    def _mean(self, logits: Tensor) -> Tensor:
        logits = logits.unflatten(0, (-1, self.frames_per_clip))  # [B * T, classes] -> [B, T, classes]
        if self.average == "logits":
            return logits.mean(dim=1)
        return F.log_softmax(logits.float(), dim=-1).exp().mean(dim=1).log().to(logits.dtype)

    @property
    def proposal(self) -> Proposal | None:
        """What a forward pass asks where the tokens that matter are; None where nothing is asked."""
        return self.model.proposal if self.is_pruned else None

    @property
    def methods(self) -> tuple[Pruner, ...]:
        """The methods that prune; none for a dense model."""
        return self.model.methods if self.is_pruned else ()

    @property
    def steps(self) -> Sequence[nn.Module]:
        """What the methods run; none for a dense model."""
        return self.model.steps if self.is_pruned else ()

    def num_kept(self) -> int:
        """Tokens per clip that enter the blocks, without prefix tokens; known before anything runs."""
        if not self.is_pruned:
            return self.token_grid.num_tokens
        for step in self.steps:
            if isinstance(step, SharedBudgetStep):
                return step.clip_total(self.frame_grid.num_tokens)
        return self.frames_per_clip * int(self.model.num_kept())

    def num_final(self) -> int:
        """Tokens per clip that reach the head, without prefix tokens; the most there can be where frames differ."""
        if not self.is_pruned:
            return self.token_grid.num_tokens
        return min(self.num_kept(), self.frames_per_clip * int(self.model.num_final()))

    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know of the methods."""
        return self.model.notes() if self.is_pruned else ()


def _check_settings(frames_per_clip: object, average: str, budget: str) -> None:
    if isinstance(frames_per_clip, bool) or not isinstance(frames_per_clip, int) or frames_per_clip < 1:
        raise ConfigError(f"frames_per_clip must be a whole number of at least 1, got {frames_per_clip!r}")
    if average not in AVERAGES:
        raise ConfigError(f"average must be one of {', '.join(AVERAGES)}, got {average!r}")
    if budget not in BUDGETS:
        raise ConfigError(f"budget must be one of {', '.join(BUDGETS)}, got {budget!r}")
