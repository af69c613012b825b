"""Analytic cost of a host on given token counts, without running it.

GFLOPs here are giga multiply-accumulates per view, as the papers count them, the proposal stated apart. Counters that
run the model miss fused attention silently (fvcore and torch's own on CPU), so counting is done from the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import nn

from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError
from vidprune.hierarchical import PrunedHierarchical, has_stages, image_size, prune_stages
from vidprune.models.frame_batch import FrameBatch
from vidprune.profiling.stage_flops import count as count_stages
from vidprune.proposals.base import ClipShape, Proposal
from vidprune.pruners.base import InBlockStep
from vidprune.pruners.block_parts import BlockPlan, plan_blocks
from vidprune.pruners.controls import Random
from vidprune.pruning import PrunedViT, host_of, input_shape, token_grid

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)

CONVENTIONS = ("matmul", "fvcore")
_GIGA = 1e9

Plan = Sequence[BlockPlan]
"""What each block of a ViT does with one sample."""


@dataclass(frozen=True)
class FlopsReport:
    """Cost of one view in GMACs.

    Attributes:
        dense_gmacs: the host with every token.
        vit_gmacs: the host on the kept tokens, `reduction_gmacs` included.
        proposal_gmacs: what deciding before the first block costs, apart.
        num_tokens: tokens of the dense host, prefix included; on hosts with stages the pixels of the first one.
        token_counts: tokens entering each block, prefix included.
        convention: "matmul" (matrix products and convolutions) or "fvcore" (plus 5 per element of a LayerNorm's
            output, 2 per element of a batch norm's).
        reduction_gmacs: the matrix products of a method inside blocks, such as ToMe's matching.
        mlp_token_counts: tokens entering each block's MLP, prefix included; the kept pixels on hosts with stages.
        depends_on_input: a method's counts are known after a forward pass alone; everything here is then the most
            there can be, if no plans of samples were given.
        pointwise_share: on hosts with stages, the share of the dense cost in layers that run on kept pixels alone.
        skipped_embedding_gmacs: of `vit_gmacs`, the embedding of dropped patches, which papers count and
            `PrunedViT.embeds_kept` leaves out.
    """

    dense_gmacs: float
    vit_gmacs: float
    proposal_gmacs: float
    num_tokens: int
    token_counts: tuple[int, ...]
    convention: str
    reduction_gmacs: float = 0.0
    mlp_token_counts: tuple[int, ...] = ()
    depends_on_input: bool = False
    pointwise_share: float | None = None
    skipped_embedding_gmacs: float = 0.0

    @property
    def total_gmacs(self) -> float:
        return self.vit_gmacs + self.proposal_gmacs

    @property
    def reduction(self) -> float:
        """How many times fewer operations than dense, proposal included."""
        return self.dense_gmacs / self.total_gmacs


def flops(model: nn.Module, *, convention: str = "matmul", plans: Sequence[Plan] | None = None) -> FlopsReport:
    """Cost per view of a timm ViT (VideoMAE included), ConvNeXt or Swin, pruned or not, or of a batch of frames.

    Runs nothing, so a model on the meta device will do.

    Args:
        plans: what each block of a ViT does, one row per sample; the cost is their mean. Where counts depend on the
            input, `trace.plans` of `forward_with_trace` has them for the samples that ran.

    Raises:
        UnsupportedModelError: for another kind of model.
        ConfigError: for an unknown convention, or plans that do not fit the model.
    """
    if convention not in CONVENTIONS:
        raise ConfigError(f"convention must be 'matmul' or 'fvcore', got {convention!r}")
    if plans is not None and (has_stages(model) or isinstance(model, FrameBatch)):
        raise ConfigError(f"plans are the blocks of a ViT on one view; a {type(model).__name__} takes none")
    if isinstance(model, FrameBatch):
        return _clip_report(model, convention)
    if has_stages(model):
        return _stage_report(model, convention)
    return _vit_report(model, convention, plans)


def counts_plan(token_counts: Sequence[int], mlp_token_counts: Sequence[int] | None = None) -> tuple[BlockPlan, ...]:
    """The plan of a ViT whose token counts per block, prefix included, are known from elsewhere, e.g. as means.

    Args:
        token_counts: tokens entering each block.
        mlp_token_counts: tokens entering each block's MLP; by default as many.
    """
    mlp = token_counts if mlp_token_counts is None else mlp_token_counts
    if len(mlp) != len(token_counts) or min(*token_counts, *mlp) < 1:
        raise ConfigError(f"counts are one number from 1 per block, got {list(token_counts)} and {list(mlp)}")
    return tuple(BlockPlan(attention, left) for attention, left in zip(token_counts, mlp, strict=True))


def _vit_report(model: nn.Module, convention: str, plans: Sequence[Plan] | None) -> FlopsReport:
    host = host_of(model)
    prefix = int(host.num_prefix_tokens)
    num_tokens = token_grid(host).num_tokens
    dense_plan = plan_blocks(None, num_tokens, prefix, len(host.blocks))
    pruned = model if isinstance(model, PrunedViT) else None
    if plans is None:
        plans = [dense_plan if pruned is None else pruned.plan(num_tokens)]
    elif not plans or any(len(plan) != len(host.blocks) for plan in plans):
        lengths = sorted({len(plan) for plan in plans})
        raise ConfigError(f"this host has {len(host.blocks)} blocks, plans have {lengths}: give one entry per block")
    shape = input_shape(host)
    clip = (shape[2], shape[3], shape[4]) if len(shape) == 5 else (1, shape[2], shape[3])
    reduction = 0.0 if pruned is None else _mean([_reduction_macs(pruned.block_step, plan, prefix) for plan in plans])
    return FlopsReport(
        dense_gmacs=_vit_macs(host, dense_plan, convention) / _GIGA,
        vit_gmacs=(_mean([_vit_macs(host, plan, convention) for plan in plans]) + reduction) / _GIGA,
        proposal_gmacs=0.0 if pruned is None else _before_gmacs(pruned, clip, convention),
        num_tokens=prefix + num_tokens,
        token_counts=_mean_counts([[block.attention for block in plan] for plan in plans]),
        convention=convention,
        reduction_gmacs=reduction / _GIGA,
        mlp_token_counts=_mean_counts([[block.mlp for block in plan] for plan in plans]),
        depends_on_input=pruned is not None and pruned.ragged,
        skipped_embedding_gmacs=0.0 if pruned is None else _skipped_embedding_macs(pruned) / _GIGA,
    )


def _stage_report(model: nn.Module, convention: str) -> FlopsReport:
    pruned = model if isinstance(model, PrunedHierarchical) else prune_stages(model, [Random(1.0)], self_check=False)
    everywhere = [grid.num_tokens for grid in pruned.grids]
    dense, kept = count_stages(pruned, everywhere), count_stages(pruned, pruned.kept_pixels())
    depths = [len(stage.blocks) for stage in pruned.stages]
    norms = (dense.norms, kept.norms) if convention == "fvcore" else (0.0, 0.0)
    clip = (1, *image_size(pruned.host))
    return FlopsReport(
        dense_gmacs=(dense.matmul + norms[0]) / _GIGA,
        vit_gmacs=(kept.matmul + norms[1]) / _GIGA,
        proposal_gmacs=pruned.step.gmacs(clip) + _norm_gmacs(pruned.proposal, clip, convention),
        num_tokens=everywhere[0],
        token_counts=_per_block(everywhere, depths),
        convention=convention,
        mlp_token_counts=_per_block(pruned.kept_pixels(), depths),
        pointwise_share=dense.pointwise / dense.matmul,
    )


def _clip_report(model: FrameBatch, convention: str) -> FlopsReport:
    """T frames through the image model, and one proposal that sees the clip."""
    frame, frames = flops(model.model, convention=convention), model.frames_per_clip
    proposal = 0.0
    if isinstance(model.model, PrunedViT):
        proposal = _before_gmacs(model.model, model.input_size, convention)
    return replace(
        frame,
        dense_gmacs=frames * frame.dense_gmacs,
        vit_gmacs=frames * frame.vit_gmacs,
        proposal_gmacs=proposal,
        num_tokens=frames * frame.num_tokens,
        token_counts=tuple(frames * count for count in frame.token_counts),
        reduction_gmacs=frames * frame.reduction_gmacs,
        mlp_token_counts=tuple(frames * count for count in frame.mlp_token_counts),
        skipped_embedding_gmacs=frames * frame.skipped_embedding_gmacs,
    )


def _before_gmacs(pruned: PrunedViT, clip: ClipShape, convention: str) -> float:
    """What deciding before the first block costs on a clip of (T, H, W) pixels."""
    return sum(step.gmacs(clip) for step in pruned.before_steps) + _norm_gmacs(pruned.proposal, clip, convention)


def _norm_gmacs(proposal: Proposal | None, clip: ClipShape, convention: str) -> float:
    return proposal.norm_gmacs(clip) if proposal is not None and convention == "fvcore" else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _mean_counts(rows: Sequence[Sequence[int]]) -> tuple[int, ...]:
    return tuple(round(_mean(column)) for column in zip(*rows, strict=True))


def _per_block(per_stage: Sequence[int], depths: Sequence[int]) -> tuple[int, ...]:
    return tuple(number for number, depth in zip(per_stage, depths, strict=True) for _ in range(depth))


def _vit_macs(host: VisionTransformer, plan: Plan, convention: str) -> float:
    """MACs of embedding, blocks and head, the blocks running on the tokens that `plan` gives them."""
    width = int(host.embed_dim)
    embed = host.patch_embed.proj  # every patch, as papers count; see `skipped_embedding_gmacs`
    macs = token_grid(host).num_tokens * embed.weight.numel()
    for block, tokens in zip(host.blocks, plan, strict=True):
        rows = tokens.attention if tokens.rows is None else tokens.rows  # queries whose output is computed
        macs += tokens.attention * 3 * width * width  # queries, keys, values
        macs += rows * (width * width + 2 * tokens.attention * width)  # output; scores, their use
        macs += tokens.mlp * (_linear_weights(block.mlp) if hasattr(block, "mlp") else 8 * width * width)
    for head in (host.head, getattr(host, "head_dist", None)):  # distilled hosts have two
        if isinstance(head, nn.Linear):
            macs += head.weight.numel()
    if convention == "fvcore":
        normed_at_end = 1 if isinstance(host.norm, nn.Identity) else plan[-1].mlp  # fc_norm sees the pooled vector
        macs += 5 * width * (sum(tokens.attention + tokens.mlp for tokens in plan) + normed_at_end)
    return float(macs)


def _skipped_embedding_macs(pruned: PrunedViT) -> float:
    """MACs of embedding the patches that are dropped before any is embedded."""
    if not pruned.embeds_kept:
        return 0.0
    dropped = pruned.token_grid.num_tokens - pruned.num_kept()
    return float(dropped * pruned.host.patch_embed.proj.weight.numel())


def _linear_weights(module: nn.Module) -> int:
    """Weights of all linear layers of a module: its MACs per token."""
    return sum(layer.weight.numel() for layer in module.modules() if isinstance(layer, nn.Linear))


def _reduction_macs(step: InBlockStep | None, plan: Sequence[BlockPlan], prefix: int) -> float:
    """MACs of the matrix products that a method inside blocks adds, such as ToMe's matching."""
    acting = [(index, block) for index, block in enumerate(plan) if block.acts]
    if step is None or not acting:
        return 0.0
    macs = sum(step.macs(index, block.attention - prefix, block.mlp - prefix) for index, block in acting)
    return macs + step.prepare_macs(plan[0].attention - prefix)
