"""A timm block taken apart into its own submodules, so that a step can act between attention and MLP.

Nothing here changes the block: its norms, projections, LayerScale and drop paths are called as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidprune.compat import ensure_torchvision
from vidprune.errors import UnsupportedModelError
from vidprune.pruners.base import BlockStep, InBlockStep
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.state import TokenState

ensure_torchvision()
from timm.models.vision_transformer import Attention, Block, VisionTransformer  # noqa: E402  (the guard above must come first)


@dataclass(frozen=True)
class BlockPlan:
    """What one block will do, known before anything runs. Counts include the prefix tokens.

    Attributes:
        attention: tokens entering the block.
        mlp: tokens entering its MLP, and leaving it.
        acts: whether a step acts between the two.
        composed: whether the block runs from its parts; otherwise it is called as it is.
        rows: tokens whose attention output is computed; None for all that enter.
    """

    attention: int
    mlp: int
    acts: bool = False
    composed: bool = False
    rows: int | None = None


def plan_blocks(step: InBlockStep | None, num_tokens: int, num_prefix: int, depth: int) -> tuple[BlockPlan, ...]:
    """The plan of every block when `num_tokens` tokens, prefix not counted, enter the first one."""
    plan, reduced = [], False
    for block in range(depth):
        acts = step is not None and step.acts(block, num_tokens)
        left = step.num_left(block, num_tokens) if step is not None and acts else num_tokens
        composed = acts or (step is not None and step.proportional and reduced)
        plan.append(BlockPlan(num_prefix + num_tokens, num_prefix + left, acts, composed))
        num_tokens, reduced = left, reduced or acts
    return tuple(plan)


def run_composed(block: Any, state: TokenState, step: BlockStep | None, index: int, plan: BlockPlan) -> TokenState:
    """One block from its parts; with all tokens kept and no sizes, what the block itself computes."""
    bias = None
    if step is not None and step.proportional and state.sizes is not None:
        bias = state.sizes.log()[:, None, None].to(state.tokens.dtype)  # [B, 1, 1, P + K] (ToMe, Eq. 1)
    update, seen = attend(block.attn, block.norm1(state.tokens), bias)
    state = replace(state, tokens=state.tokens + block.drop_path1(block.ls1(update)))
    if step is not None and plan.acts:
        state = step(state, seen, index, plan.mlp - state.num_prefix)
    tokens = state.tokens
    return replace(state, tokens=tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens)))))


def attend(attn: Any, tokens: Tensor, bias: Tensor | None) -> tuple[Tensor, AttentionInputs]:
    """timm's `Attention` from its parts, with `bias` [B, 1, 1, N] on the keys, and what it looked at."""
    seen = attention_inputs(attn, tokens, bias)
    return project_output(attn, attention_output(attn, seen), tokens), seen


def attention_inputs(attn: Any, tokens: Tensor, bias: Tensor | None = None) -> AttentionInputs:
    """Queries, keys and values of normed tokens [B, N, D]."""
    batch, num_tokens, _ = tokens.shape
    qkv = attn.qkv(tokens).reshape(batch, num_tokens, 3, attn.num_heads, attn.head_dim)
    queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, N, head_dim]
    return AttentionInputs(attn.q_norm(queries), attn.k_norm(keys), values, attn.scale, bias)


def attention_output(attn: Any, seen: AttentionInputs) -> Tensor:
    """What the queries see, [B, heads, M, head_dim] for M queries."""
    if attn.fused_attn:
        dropout = attn.attn_drop.p if attn.training else 0.0
        return F.scaled_dot_product_attention(
            seen.queries, seen.keys, seen.values, attn_mask=seen.bias, dropout_p=dropout
        )
    logits = (seen.queries * attn.scale) @ seen.keys.transpose(-2, -1)  # [B, heads, M, N]
    logits = logits if seen.bias is None else logits + seen.bias
    return attn.attn_drop(logits.softmax(dim=-1)) @ seen.values


def project_output(attn: Any, output: Tensor, tokens: Tensor) -> Tensor:
    """The attention's update [B, M, D] from its output and the normed tokens [B, M, D] that asked for it."""
    output = attn.norm(output.transpose(1, 2).flatten(2))  # [B, M, heads * head_dim]
    gate = getattr(attn, "gate", None)
    if gate is not None:
        output = output * gate(tokens).sigmoid()
    return attn.proj_drop(attn.proj(output))


def weigh_for_mean(host: VisionTransformer, tokens: Tensor, sizes: Tensor) -> Tensor:
    """Scale tokens [B, P + K, D] so that the host's own mean over them becomes the mean weighted by `sizes`."""
    if host.attn_pool is not None or host.global_pool != "avg":
        return tokens
    first = 0 if host.pool_include_prefix else host.num_prefix_tokens
    pooled = sizes[:, first:]
    weights = pooled * (pooled.shape[1] / pooled.sum(dim=1, keepdim=True))  # [B, K], mean 1
    weighed = (tokens[:, first:].float() * weights.unsqueeze(-1)).to(tokens.dtype)
    return torch.cat((tokens[:, :first], weighed), dim=1)


def is_composable(block: nn.Module) -> bool:
    """Whether the block is timm's `Block` with its `Attention`, and so can run from its parts."""
    return (
        isinstance(block, Block)
        and type(block).forward is Block.forward
        and isinstance(block.attn, Attention)
        and type(block.attn).forward is Attention.forward
    )


def check_composable(block: nn.Module, index: int) -> None:
    """Raise `UnsupportedModelError`, naming what was found, unless the block `is_composable`."""
    if is_composable(block):
        return
    needed = "methods inside blocks need timm's Block with timm's Attention; use one before the blocks, such as PaPr"
    if not isinstance(block, Block) or type(block).forward is not Block.forward:
        raise UnsupportedModelError(
            f"block {index} is a {type(block).__name__}, which has no known place between attention and MLP: {needed}"
        )
    raise UnsupportedModelError(
        f"the attention of block {index} is a {type(block.attn).__name__}, which is not supported: {needed}"
    )


def composition_gap(block: nn.Module, tokens: Tensor) -> float:
    """Largest difference between a block's own output and the one composed from its parts, relative to its size."""
    state = TokenState(tokens, grid=None, num_prefix=0)  # type: ignore[arg-type]  # the grid plays no part here
    devices = [tokens.device] if tokens.is_cuda else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)  # a block in training mode drops the same entries in both runs
        expected = block(tokens)
        torch.manual_seed(0)
        composed = run_composed(block, state, None, 0, BlockPlan(tokens.shape[1], tokens.shape[1])).tokens
    return float((expected - composed).abs().max() / expected.abs().max().clamp(min=1e-12))
