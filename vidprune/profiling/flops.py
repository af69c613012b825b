"""Analytic cost of a ViT on given token counts, without running it.

GFLOPs here are giga multiply-accumulates per view, as the papers count them, the proposal stated apart. Counters that
run the model miss fused attention silently (fvcore and torch's own on CPU), so counting is done from the shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError
from vidprune.pruners.base import InBlockStep
from vidprune.pruners.block_parts import BlockPlan, plan_blocks
from vidprune.pruning import PrunedViT, host_of, input_shape, token_grid

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)

_GIGA = 1e9


@dataclass(frozen=True)
class FlopsReport:
    """Cost of one view in GMACs.

    Attributes:
        dense_gmacs: the host with every token.
        vit_gmacs: the host on the kept tokens, `reduction_gmacs` included.
        proposal_gmacs: what deciding before the first block costs, apart.
        num_tokens: tokens of the dense host, prefix included.
        token_counts: tokens entering each block, prefix included.
        convention: "matmul" (matrix products and convolutions) or "fvcore" (plus its 5 per LayerNorm element).
        reduction_gmacs: the matrix products of a method inside blocks, such as ToMe's matching.
        mlp_token_counts: tokens entering each block's MLP, prefix included.
    """

    dense_gmacs: float
    vit_gmacs: float
    proposal_gmacs: float
    num_tokens: int
    token_counts: tuple[int, ...]
    convention: str
    reduction_gmacs: float = 0.0
    mlp_token_counts: tuple[int, ...] = ()

    @property
    def total_gmacs(self) -> float:
        return self.vit_gmacs + self.proposal_gmacs

    @property
    def reduction(self) -> float:
        """How many times fewer operations than dense, proposal included."""
        return self.dense_gmacs / self.total_gmacs


def flops(model: nn.Module, *, convention: str = "matmul") -> FlopsReport:
    """Cost per view of a timm `VisionTransformer` or a pruned one. Runs nothing, so a model on the meta device will do.

    Raises:
        UnsupportedModelError: for another kind of model.
    """
    if convention not in ("matmul", "fvcore"):
        raise ConfigError(f"convention must be 'matmul' or 'fvcore', got {convention!r}")
    host = host_of(model)
    prefix = int(host.num_prefix_tokens)
    num_tokens = token_grid(host).num_tokens + prefix
    dense_plan = plan_blocks(None, num_tokens - prefix, prefix, len(host.blocks))
    dense = _vit_macs(host, dense_plan, convention)
    dense_counts = tuple(block.attention for block in dense_plan)
    if not isinstance(model, PrunedViT):
        return FlopsReport(
            dense / _GIGA, dense / _GIGA, 0.0, num_tokens, dense_counts, convention, mlp_token_counts=dense_counts
        )
    plan = model.plan(num_tokens - prefix)
    shape = input_shape(host)
    clip_shape = (shape[2], shape[3], shape[4]) if len(shape) == 5 else (1, shape[2], shape[3])
    reduction = _reduction_macs(model.block_step, plan, prefix)
    return FlopsReport(
        dense / _GIGA,
        (_vit_macs(host, plan, convention) + reduction) / _GIGA,
        sum(step.gmacs(clip_shape) for step in model.before_steps),
        num_tokens,
        model.token_counts(),
        convention,
        reduction_gmacs=reduction / _GIGA,
        mlp_token_counts=model.mlp_token_counts(),
    )


def _vit_macs(host: VisionTransformer, plan: Sequence[BlockPlan], convention: str) -> float:
    """MACs of embedding, blocks and head, the blocks running on the tokens that `plan` gives them."""
    width = int(host.embed_dim)
    embed = host.patch_embed.proj  # every token is embedded: pruning comes after
    macs = token_grid(host).num_tokens * embed.weight.numel()
    for block, tokens in zip(host.blocks, plan, strict=True):
        macs += tokens.attention * (4 * width * width + 2 * tokens.attention * width)  # qkv, output; scores, their use
        macs += tokens.mlp * (_linear_weights(block.mlp) if hasattr(block, "mlp") else 8 * width * width)
    for head in (host.head, getattr(host, "head_dist", None)):  # distilled hosts have two
        if isinstance(head, nn.Linear):
            macs += head.weight.numel()
    if convention == "fvcore":
        normed_at_end = 1 if isinstance(host.norm, nn.Identity) else plan[-1].mlp  # fc_norm sees the pooled vector
        macs += 5 * width * (sum(tokens.attention + tokens.mlp for tokens in plan) + normed_at_end)
    return float(macs)


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
