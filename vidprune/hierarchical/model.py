"""The module around a host with stages, whatever its family."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from vidprune.errors import ConfigError
from vidprune.proposals.base import Proposal
from vidprune.pruners.base import HostInfo, Pruner
from vidprune.pruners.one_step import OneStep
from vidprune.pruners.placing import move_beside
from vidprune.pruners.stage_options import StageOptions
from vidprune.tokens.pixels import KeptPixels
from vidprune.tokens.resize import map_to_scores
from vidprune.tokens.select import top_k_index
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid

DEFAULT_IMAGE_SIZE = (224, 224)


@dataclass(frozen=True)
class StageTrace:
    """What one forward pass kept in each stage of the host.

    Attributes:
        kept_index: per stage int64 [B, K] ascending, places in that stage's grid; None where all pixels were kept.
        grids: the grid of each stage, t = 1.
        proposal_map: [B, t', h', w'] on the proposal's own grid; None where none was asked.
    """

    kept_index: tuple[Tensor | None, ...]
    grids: tuple[TokenGrid, ...]
    proposal_map: Tensor | None


class PrunedHierarchical(nn.Module, ABC):
    """A host with stages whose pointwise layers run on the kept pixels alone.

    Takes what the host takes, images [B, 3, H, W], and returns the host's logits [B, classes]. One proposal map, asked
    once, is resized to the grid of every stage. Stages that drop nothing are called as they are; the host is never
    changed. Controls, which have no grid of their own, answer on the last stage's grid, so that every stage keeps about
    the same part of the picture.
    """

    family: tuple[type[nn.Module], ...]
    """Classes of the host, its stages and its blocks."""

    def __init__(self, host: nn.Module, method: Pruner) -> None:
        super().__init__()
        if not isinstance(method, StageOptions):
            raise ConfigError(
                f"{method.name} cannot run on a {type(host).__name__}, whose pixels keep their places: "
                "use a method that scores places once, which are papr, random, uniform and centre"
            )
        self.host: Any = host
        self.methods = (method,)
        self.grids = stage_grids(self, image_size(host))
        self.pruned_stages = method.stage_numbers(len(self.grids))
        self.keep_shortcut = method.keep_shortcut
        step = method.build(_host_info(self))
        if not isinstance(step, OneStep):
            raise ConfigError(f"{method.name} with these options needs a ViT: give it a keep_ratio on this host")
        move_beside(step, host)
        self.step = step
        self._counts = {grid.num_tokens: step.num_kept(grid.num_tokens) for grid in self.grids}
        self.training = host.training  # wrapping must not switch the host's mode

    @property
    def stages(self) -> Sequence[Any]:
        """The host's stages, each with a `downsample` and `blocks`."""
        return self.host.stages

    @property
    def num_classes(self) -> int:
        return int(self.host.num_classes)

    @property
    def token_grid(self) -> TokenGrid:
        """The grid of the last stage, on which proposals without a grid of their own answer."""
        return self.grids[-1]

    @property
    def proposal(self) -> Proposal | None:
        """What a forward pass will ask where the pixels that matter are; None where nothing is asked."""
        return self.step.asks()

    def kept_pixels(self) -> tuple[int, ...]:
        """Pixels of each stage that its pointwise layers run on, for the host's own input size."""
        return tuple(
            self._num_kept(grid) if stage in self.pruned_stages else grid.num_tokens
            for stage, grid in enumerate(self.grids)
        )

    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know of the method."""
        return ()

    def forward(self, pixels: Tensor, proposal_map: Tensor | None = None) -> Tensor:
        """Logits [B, classes]. A `proposal_map` [B, t', h', w'] takes the place of the proposal's own pass."""
        return self.forward_with_trace(pixels, proposal_map)[0]

    def forward_with_trace(self, pixels: Tensor, proposal_map: Tensor | None = None) -> tuple[Tensor, StageTrace]:
        """Logits [B, classes] and what was kept, for overlays and checks."""
        if self.proposal is None:
            if proposal_map is not None:
                raise ConfigError("this model asks no proposal, so it has no use for a proposal_map")
            return self.host(pixels), StageTrace((None,) * len(self.grids), self.grids, None)
        x = self.embed(pixels)
        with torch.no_grad():  # the selection is not differentiable; kept pixels still carry gradients
            state = TokenState(x, self.token_grid, num_prefix=0, proposal_map=proposal_map)
            proposal_map = self.step.score(pixels, state)[1]
        kept_index, grids = [], []
        for number, stage in enumerate(self.stages):
            kept = None
            if number in self.pruned_stages:
                x = stage.downsample(x)
                kept = self._select(proposal_map, self.grid_of(x))
                for block in stage.blocks:
                    x = self.run_block(block, x, kept)
            else:
                x = stage(x)
            kept_index.append(None if kept is None else kept.index)
            grids.append(self.grid_of(x))
        return self.finish(x), StageTrace(tuple(kept_index), tuple(grids), proposal_map)

    @abstractmethod
    def embed(self, pixels: Tensor) -> Tensor:
        """Images [B, 3, H, W] -> the feature map that enters the first stage."""

    @abstractmethod
    def run_block(self, block: Any, x: Tensor, kept: KeptPixels) -> Tensor:
        """One block on the feature map `x`, its pointwise layers on the kept pixels alone."""

    @abstractmethod
    def finish(self, x: Tensor) -> Tensor:
        """The last stage's feature map -> logits [B, classes]."""

    @abstractmethod
    def grid_of(self, x: Tensor) -> TokenGrid:
        """The grid of a feature map."""

    @abstractmethod
    def random_map(self, block: Any, grid: TokenGrid) -> Tensor:
        """A random feature map that `block` takes, [1, ...], to check with."""

    def _select(self, proposal_map: Tensor | None, grid: TokenGrid) -> KeptPixels:
        assert proposal_map is not None  # a step that asks a proposal answers with its map
        with torch.no_grad():
            scores = map_to_scores(proposal_map, grid, self.step.align_corners)  # [B, H * W]
            return KeptPixels.of(top_k_index(scores, self._num_kept(grid)), grid.num_tokens)

    def _num_kept(self, grid: TokenGrid) -> int:
        count = self._counts.get(grid.num_tokens)  # counting inside forward would break the graph
        return self.step.num_kept(grid.num_tokens) if count is None else count


def image_size(host: nn.Module) -> tuple[int, int]:
    """(H, W) of the images a host was made for: its own, or its configuration's, or 224 x 224."""
    size = getattr(getattr(host, "patch_embed", None), "img_size", None)
    if size is None:
        config: Any = getattr(host, "pretrained_cfg", None) or {}
        size = tuple(config.get("input_size", (3, *DEFAULT_IMAGE_SIZE)))[1:]
    return (int(size[0]), int(size[1]))


def stage_grids(pruned: PrunedHierarchical, size: tuple[int, int]) -> tuple[TokenGrid, ...]:
    """The grid of each stage for images of (H, W) pixels, found without arithmetic."""
    host = pruned.host
    stem = host.stem if hasattr(host, "stem") else host.patch_embed
    x = shape_after(stem, torch.empty(1, int(host.in_chans), *size, device="meta"))
    grids = []
    for stage in pruned.stages:
        x = shape_after(stage.downsample, x)
        grids.append(pruned.grid_of(x))
    return tuple(grids)


def shape_after(module: nn.Module, x: Tensor) -> Tensor:
    """What `module` makes of a tensor without data: its weights are replaced by shapes for this one call."""
    shapes = {name: torch.empty(value.shape, device="meta") for name, value in module.state_dict().items()}
    return functional_call(module, shapes, (x,))


def _host_info(pruned: PrunedHierarchical) -> HostInfo:
    return HostInfo(
        grid=pruned.token_grid,
        num_prefix=0,
        depth=sum(len(stage.blocks) for stage in pruned.stages),
        width=int(pruned.host.num_features),
        num_heads=1,
        has_class_token=False,
    )
