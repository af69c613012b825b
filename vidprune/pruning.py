"""`prune(model, method)`: a new module that calls the host's own submodules and leaves the host untouched."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.pruners.base import HostInfo, Pruner, Step
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid

ensure_torchvision()
import timm  # noqa: E402  (the guard above must come first)
from timm.models.vision_transformer import VisionTransformer  # noqa: E402


@dataclass(frozen=True)
class PruneTrace:
    """What one forward pass kept.

    Attributes:
        kept_index: int64 [B, K] ascending, in original token coordinates without prefix tokens; None if all were kept.
        token_counts: tokens entering each block, prefix tokens included.
        grid: the host's token grid.
        proposal_map: [B, t', h', w'] on the proposal's own grid, or None.
    """

    kept_index: Tensor | None
    token_counts: tuple[int, ...]
    grid: TokenGrid
    proposal_map: Tensor | None


class PrunedViT(nn.Module):
    """A timm `VisionTransformer` with pruning steps before its first block.

    Takes what the host takes ([B, 3, T, H, W] or [B, 3, H, W]) and returns the host's logits [B, classes].
    """

    def __init__(self, host: VisionTransformer, methods: Sequence[Pruner]) -> None:
        super().__init__()
        self.host = host
        self.methods = tuple(methods)
        info = HostInfo(token_grid(host), host.num_prefix_tokens, len(host.blocks))
        self.steps = nn.ModuleList(method.build(info) for method in methods)
        self.training = host.training  # wrapping must not switch the host's mode

    @property
    def token_grid(self) -> TokenGrid:
        """Token grid of the host, before pruning."""
        return token_grid(self.host)

    @property
    def num_classes(self) -> int:
        return int(self.host.num_classes)

    def num_kept(self) -> int:
        """Tokens per view that enter the blocks, without prefix tokens; known before anything runs."""
        count = self.token_grid.num_tokens
        for step in self.step_list():
            count = step.num_kept(count)
        return count

    def token_counts(self) -> tuple[int, ...]:
        """Tokens entering each block, prefix tokens included."""
        return (self.num_kept() + int(self.host.num_prefix_tokens),) * len(self.host.blocks)

    def forward(self, pixels: Tensor) -> Tensor:
        return self._forward(pixels)[0]

    def forward_with_trace(self, pixels: Tensor) -> tuple[Tensor, PruneTrace]:
        """Logits [B, classes] and what was kept, for overlays and checks."""
        logits, state = self._forward(pixels)
        return logits, PruneTrace(state.kept_index, self.token_counts(), state.grid, state.proposal_map)

    def _forward(self, pixels: Tensor) -> tuple[Tensor, TokenState]:
        host = self.host
        tokens = host.norm_pre(host.patch_drop(host._pos_embed(host.patch_embed(pixels))))  # [B, P + N, D]
        state = TokenState(tokens, token_grid(host), host.num_prefix_tokens)
        for step in self.step_list():
            state = step(pixels, state)
        tokens = host.norm(host.blocks(state.tokens))  # [B, P + K, D]
        return host.forward_head(tokens), state

    def step_list(self) -> list[Step]:
        """The steps in the order in which they run."""
        return cast(list[Step], list(self.steps))


def prune(model: nn.Module, method: Pruner | Sequence[Pruner], *, self_check: bool = True) -> PrunedViT:
    """Wrap a timm `VisionTransformer` (VideoMAE included) so that only the tokens that matter run through its blocks.

    Args:
        model: the host; it is called, never changed, and can be used beside the pruned model.
        method: a config such as `PaPr(keep_ratio=0.45)`.
        self_check: compare the composed forward with the host's own, everything kept, on a random input through the
            host's first and last block; the whole price is a few milliseconds.

    Raises:
        UnsupportedModelError: for a host that is not a timm `VisionTransformer`, or whose forward does more than
            embed, blocks, norm and head.
        ConfigError: for a method that the host cannot run.
    """
    methods = (method,) if isinstance(method, Pruner) else tuple(method)
    for entry in methods:
        if not isinstance(entry, Pruner):
            raise ConfigError(f"method must be a config such as PaPr(keep_ratio=0.45), got {entry!r}")
    if len(methods) != 1:
        raise ConfigError(f"one method at a time is supported before the first block, got {len(methods)}")
    if isinstance(model, PrunedViT):
        raise UnsupportedModelError("this model is already pruned; prune its .host instead")
    host = host_of(model)
    if self_check:
        _check_composition(host)
    return PrunedViT(host, methods)


def host_of(model: nn.Module) -> VisionTransformer:
    """The timm `VisionTransformer` inside a pruned model, or the model itself.

    Raises:
        UnsupportedModelError: for a model that is neither.
    """
    host = model.host if isinstance(model, PrunedViT) else model
    if not isinstance(host, VisionTransformer):
        raise UnsupportedModelError(
            f"expected a timm VisionTransformer (VideoMAE included) or a pruned one, got {type(host).__name__}; "
            "create one with vidprune.create_model or timm.create_model"
        )
    return host


def token_grid(host: VisionTransformer) -> TokenGrid:
    """Token grid of a host: (t, h, w) for tubelets, (1, h, w) for images."""
    grid = getattr(host.patch_embed, "grid", None)
    return grid if isinstance(grid, TokenGrid) else TokenGrid(1, *host.patch_embed.grid_size)


def _check_composition(host: VisionTransformer) -> None:
    """Raise unless embed -> blocks -> norm -> head, composed here, equals the host's own forward bit for bit."""
    probe = copy.copy(host)  # shares every weight; only the list of blocks differs, so the check costs two blocks
    probe._modules = dict(host._modules)
    blocks = host.blocks
    probe.blocks = nn.Sequential(blocks[0], blocks[-1]) if len(blocks) > 1 else nn.Sequential(*blocks)
    parameter = next(host.parameters())
    if parameter.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(input_shape(host), generator=generator).to(parameter.device, parameter.dtype)
    composed_model = PrunedViT(probe, ())

    def run(model: nn.Module) -> Tensor:
        devices = [parameter.device] if parameter.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)  # a host in training mode drops the same entries in both runs
            return model(pixels)

    expected, composed = run(probe), run(composed_model)
    if not torch.equal(expected, composed):
        gap = (expected - composed).abs().max().item()
        raise UnsupportedModelError(
            f"{type(host).__name__} does more in its forward than embed, blocks, norm and head, so it cannot be "
            f"pruned: logits differ by {gap:.2g}, all tokens kept (timm {timm.__version__}, torch {torch.__version__})"
        )


def input_shape(host: VisionTransformer) -> tuple[int, ...]:
    """Shape of one input of the host: (1, 3, T, H, W) for tubelets, (1, 3, H, W) for images."""
    embed = host.patch_embed
    if isinstance(getattr(embed, "grid", None), TokenGrid):
        return (1, 3, embed.num_frames, embed.image_size, embed.image_size)
    return (1, host.in_chans, *embed.img_size)
