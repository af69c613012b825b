"""`prune(model, method)`: a new module that calls the host's own submodules and leaves the host untouched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeGuard

import torch
from torch import Tensor, nn

from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.hierarchical import PrunedHierarchical, has_stages, prune_stages, refuse_stage_options
from vidprune.models.frame_batch import FrameBatch
from vidprune.models.kept_embedding import can_embed_kept, embed_kept
from vidprune.proposals.base import Proposal
from vidprune.pruners.arguments import check_pixels, checked_methods
from vidprune.pruners.base import BlockStep, HostInfo, InBlockStep, Pruner, RaggedBlockStep, RaggedStep, Step
from vidprune.pruners.block_parts import (
    BlockPlan,
    check_composable,
    is_composable,
    plan_blocks,
    run_composed,
    weigh_for_mean,
)
from vidprune.pruners.one_step import OneStep
from vidprune.pruners.packed_blocks import run_packed
from vidprune.pruners.placing import move_beside
from vidprune.pruners.self_check import check_block, check_composition
from vidprune.pruners.trace import Part, trace_of
from vidprune.pruners.trace import PruneTrace as PruneTrace
from vidprune.tokens.moves import Move
from vidprune.tokens.packed import PackedState, unpack
from vidprune.tokens.state import TokenState
from vidprune.types import TokenGrid

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)


class PrunedViT(nn.Module):
    """A timm `VisionTransformer` with pruning steps before its first block and inside its blocks.

    Takes what the host takes ([B, 3, T, H, W] or [B, 3, H, W]) and returns the host's logits [B, classes]. A block in
    which nothing happens is called as it is; the others run from their own submodules. The host is never changed.
    Where a method's count depends on the input (`ragged`), counts that are known beforehand are the most there can be.
    """

    def __init__(self, host: VisionTransformer, methods: Sequence[Pruner], *, embed_kept: bool = True) -> None:
        super().__init__()
        self.host = host
        self.embed_kept = embed_kept
        self._can_embed_kept = can_embed_kept(host)
        self.methods = tuple(methods)
        self.steps = nn.ModuleList(method.build(host_info(host)) for method in methods)
        move_beside(self.steps, host)
        self._check_order()
        self.training = host.training  # wrapping must not switch the host's mode
        self._plan = self.plan(self.token_grid.num_tokens)  # once: counting inside forward would break the graph

    @property
    def token_grid(self) -> TokenGrid:
        """Token grid of the host, before pruning."""
        return token_grid(self.host)

    @property
    def num_classes(self) -> int:
        return int(self.host.num_classes)

    @property
    def ragged(self) -> bool:
        """Whether token counts depend on the input; `forward_with_trace` then tells them."""
        return any(isinstance(step, RaggedStep | RaggedBlockStep) for step in self.steps)

    def num_kept(self) -> int:
        """Tokens per view that enter the blocks, without prefix tokens; known before anything runs."""
        return self._plan[0].attention - int(self.host.num_prefix_tokens)

    def num_final(self) -> int:
        """Tokens per view that reach the head, without prefix tokens; known before anything runs."""
        return self._plan[-1].mlp - int(self.host.num_prefix_tokens)

    def token_counts(self) -> tuple[int, ...]:
        """Tokens entering each block, prefix tokens included."""
        return tuple(block.attention for block in self._plan)

    def mlp_token_counts(self) -> tuple[int, ...]:
        """Tokens entering each block's MLP, prefix tokens included."""
        return tuple(block.mlp for block in self._plan)

    def notes(self) -> tuple[str, ...]:
        """What a reader of the results must know of the methods: substitutes and clamped values."""
        return () if self.block_step is None else self.block_step.notes(self.num_kept())

    def plan(self, num_tokens: int) -> tuple[BlockPlan, ...]:
        """What each block will do when the host embeds `num_tokens` tokens, prefix tokens not counted."""
        for step in self.before_steps:
            num_tokens = step.num_kept(num_tokens)
        return plan_blocks(self.block_step, num_tokens, int(self.host.num_prefix_tokens), len(self.host.blocks))

    @property
    def proposal(self) -> Proposal | None:
        """What a forward pass will ask where the tokens that matter are; None where nothing is asked."""
        return next((asked for step in self.before_steps if (asked := step.asks()) is not None), None)

    def forward(self, pixels: Tensor, proposal_map: Tensor | None = None) -> Tensor:
        """Logits [B, classes]. A `proposal_map` [B, t', h', w'] takes the place of the proposal's own pass."""
        return self._forward(pixels, proposal_map)[0]

    def forward_with_trace(self, pixels: Tensor, proposal_map: Tensor | None = None) -> tuple[Tensor, PruneTrace]:
        """Logits [B, classes] and what was kept, for overlays and checks."""
        logits, parts = self._forward(pixels, proposal_map)
        return logits, trace_of(parts, self.notes(), self.ragged)

    def _forward(self, pixels: Tensor, proposal_map: Tensor | None) -> tuple[Tensor, list[Part]]:
        if proposal_map is not None and self.proposal is None:
            raise ConfigError("this model asks no proposal, so it has no use for a proposal_map")
        check_pixels(pixels, input_shape(self.host))
        if self.embeds_kept and tuple(pixels.shape[1:]) == input_shape(self.host)[1:]:
            parts = self._run(self._choose_first(pixels, proposal_map))
        else:
            parts = self._run(self._embed_first(pixels, proposal_map))
        logits = [self._head(part) for part, _ in parts]
        return logits[0] if len(logits) == 1 else torch.cat(logits), parts

    def _embed_first(self, pixels: Tensor, proposal_map: Tensor | None) -> TokenState | PackedState:
        host = self.host
        embedded = host.patch_embed(pixels)  # [B, N, D], or [B, h, w, D] on hosts of dynamic size
        grid = TokenGrid(1, *embedded.shape[1:3]) if host.dynamic_img_size else self.token_grid
        tokens = host.norm_pre(host.patch_drop(host._pos_embed(embedded)))  # [B, P + N, D]
        state: TokenState | PackedState = TokenState(tokens, grid, host.num_prefix_tokens, proposal_map=proposal_map)
        for step in self.before_steps:
            state = step(pixels, state)
        return state

    @property
    def embeds_kept(self) -> bool:
        """Whether a forward pass chooses first and embeds the kept patches alone, equal up to rounding.

        So it is, unless `embed_kept` is off, where a proposal chooses on a host with a plain patch embedding; not in
        training mode, in which hosts drop positions at random, and not where nothing is dropped.
        """
        chooses = any(isinstance(step, OneStep) and step.asks() is not None for step in self.steps)
        return self.embed_kept and self._can_embed_kept and chooses and not self.host.training

    def _choose_first(self, pixels: Tensor, proposal_map: Tensor | None) -> TokenState:
        (step,) = self.before_steps
        assert isinstance(step, OneStep)
        kept_index, proposal_map = step.choose(pixels, self.token_grid, proposal_map)
        tokens = embed_kept(self.host, pixels, kept_index)  # [B, P + K, D]
        state = TokenState(tokens, self.token_grid, int(self.host.num_prefix_tokens), proposal_map=proposal_map)
        return replace(state, moves=(Move(kept_index),))

    def _run(self, state: TokenState | PackedState) -> list[Part]:
        """All blocks, and what each did; samples whose counts differ come back one by one."""
        step = self.block_step
        if isinstance(state, PackedState) and isinstance(step, BlockStep):  # which wants one count for all
            return [part for sample in unpack(state) for part in self._run(sample)]
        if isinstance(state, PackedState) or isinstance(step, RaggedBlockStep):
            return run_packed(self.host.blocks, state, step if isinstance(step, RaggedBlockStep) else None)
        entering, known = state.tokens.shape[1], self._plan
        if known[0].attention != entering:  # an image of another size, or a count that depends on the input
            known = plan_blocks(step, entering - state.num_prefix, state.num_prefix, len(self.host.blocks))
        return [(self._run_blocks(state, step, known), known)]

    def _head(self, state: TokenState) -> Tensor:
        tokens = self.host.norm(state.tokens)  # [B, P + K, D]
        if self.block_step is not None and self.block_step.weighted_pooling and state.sizes is not None:
            tokens = weigh_for_mean(self.host, tokens, state.sizes)
        return self.host.forward_head(tokens)

    def _run_blocks(self, state: TokenState, step: BlockStep | None, plan: tuple[BlockPlan, ...]) -> TokenState:
        if step is None or not any(block.composed for block in plan):
            return replace(state, tokens=self.host.blocks(state.tokens))
        state = step.prepare(state)
        for index, (block, block_plan) in enumerate(zip(self.host.blocks, plan, strict=True)):
            if block_plan.composed:
                state = run_composed(block, state, step, index, block_plan)
            else:
                state = replace(state, tokens=block(state.tokens))
        return state

    @property
    def before_steps(self) -> list[Step]:
        """The steps that run before the first block."""
        return [step for step in self.steps if isinstance(step, Step)]

    @property
    def block_step(self) -> BlockStep | RaggedBlockStep | None:
        """The step that acts inside blocks, if there is one."""
        return next((step for step in self.steps if isinstance(step, BlockStep | RaggedBlockStep)), None)

    def _check_order(self) -> None:
        kinds = ["block" if isinstance(step, InBlockStep) else "before" for step in self.steps]
        if kinds not in ([], ["before"], ["block"], ["before", "block"]):
            names = ", ".join(method.name for method in self.methods)
            raise ConfigError(
                f"a chain is at most one method before the blocks, then at most one inside them, got {names}; "
                "for example [PaPr(keep_ratio=0.55), ToMe(r=16, start_block=6)]"
            )


def prune(
    model: nn.Module, method: Pruner | Sequence[Pruner], *, self_check: bool = True, embed_kept: bool = True
) -> PrunedViT | PrunedHierarchical | FrameBatch:
    """Wrap a timm `VisionTransformer` (VideoMAE included) so that only the tokens that matter run through its blocks.

    Args:
        model: the host; it is called, never changed, and can be used beside the pruned model.
        method: a config such as `PaPr(keep_ratio=0.45)`, or a sequence of one before the blocks and one inside them.
        self_check: compare the composed forward with the host's own, everything kept, on a random input through the
            host's first and last block, and each block that will run from its parts with itself, on eight random
            tokens; the whole price is a few milliseconds.
        embed_kept: where a proposal chooses, embed the kept patches alone (`PrunedViT.embeds_kept`); False embeds all
            of them first, as papers do and count.

    Raises:
        UnsupportedModelError: for a host that is not a timm `VisionTransformer`, whose forward does more than
            embed, blocks, norm and head, or whose blocks are of a kind that a method inside blocks cannot act in.
        ConfigError: for a method that the host cannot run.

    A ConvNeXt or Swin of timm takes one method that scores places once, and becomes a `PrunedHierarchical`. A
    `FrameBatch` stays one, over the pruned image model.
    """
    methods = checked_methods(method)
    if isinstance(model, FrameBatch):
        per_frame = model.methods_of_frames(methods)
        return model.over(prune(model.model, per_frame, self_check=self_check, embed_kept=embed_kept))
    if has_stages(model):
        return prune_stages(model, methods, self_check=self_check)
    refuse_stage_options(methods)
    if isinstance(model, PrunedViT):
        raise UnsupportedModelError("this model is already pruned; prune its .host instead")
    host = host_of(model)
    if self_check:
        check_composition(host, input_shape(host), lambda probe: PrunedViT(probe, ()))
    pruned = PrunedViT(host, methods, embed_kept=embed_kept)
    for index, block in enumerate(pruned.plan(pruned.token_grid.num_tokens)):
        if block.composed:
            check_composable(host.blocks[index], index)
        if self_check and (block.composed or (pruned.ragged and is_composable(host.blocks[index]))):
            check_block(host, index)
    return pruned


def host_of(model: nn.Module) -> VisionTransformer:
    """The timm `VisionTransformer` inside a pruned model, or the model itself.

    Raises:
        UnsupportedModelError: for a model that is neither.
    """
    host = model.host if isinstance(model, PrunedViT | FrameBatch) else model
    if not isinstance(host, VisionTransformer):
        raise UnsupportedModelError(
            f"expected a timm VisionTransformer (VideoMAE included) or a pruned one, got {type(host).__name__}; "
            "create one with vidprune.create_model or timm.create_model"
        )
    return host


def token_grid(model: nn.Module) -> TokenGrid:
    """Tokens of one view before pruning: (t, h, w) for tubelets and frame batches, (1, h, w) for images."""
    grid = getattr(model, "token_grid", None)  # VideoMAE, frame batches and pruned models say it themselves
    return grid if isinstance(grid, TokenGrid) else TokenGrid(1, *host_of(model).patch_embed.grid_size)


def is_pruned(model: nn.Module) -> TypeGuard[PrunedViT | FrameBatch]:
    """Whether a model for clips, or a ViT for images, prunes and can trace what it kept."""
    return isinstance(model, PrunedViT) or (isinstance(model, FrameBatch) and model.is_pruned)


def host_info(host: VisionTransformer) -> HostInfo:
    """What a method may know of `host`."""
    return HostInfo(
        grid=token_grid(host),
        num_prefix=int(host.num_prefix_tokens),
        depth=len(host.blocks),
        width=int(host.embed_dim),
        num_heads=int(getattr(getattr(host.blocks[0], "attn", None), "num_heads", 1)),
        has_class_token=bool(host.has_class_token),
    )


def input_shape(model: nn.Module) -> tuple[int, ...]:
    """Shape of one input: (1, 3, T, H, W) for tubelets and frame batches, (1, 3, H, W) for images."""
    if isinstance(model, FrameBatch):
        return (1, 3, *model.input_size)
    host = host_of(model)
    embed = host.patch_embed
    if isinstance(getattr(embed, "grid", None), TokenGrid):
        return (1, 3, embed.num_frames, embed.image_size, embed.image_size)
    return (1, host.in_chans, *embed.img_size)
