"""Layer-wise relevance propagation through plain pre-norm blocks, batched.

Source: Chefer et al., "Transformer Interpretability Beyond Attention Visualization", CVPR 2021, section 3. Relevance of
a class score is handed back from each layer's output to its inputs and keeps its sum; norms, activations and softmax
let it through unchanged. All sums are taken per sample, so a batch gives what its samples give alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidprune.calibration.recording import Recorded, Recording
from vidprune.compat import ensure_torchvision
from vidprune.errors import UnsupportedModelError

ensure_torchvision()
from timm.layers import Mlp  # noqa: E402  (the guard above must come first)
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

_TINY = 1e-9  # a denominator below this hands nothing back


def attention_relevance(host: VisionTransformer, recorded: Recording, classes: Tensor) -> list[Tensor]:
    """Relevance of each block's attention for one class per sample, float64 [B, heads, P + N, P + N] per block.

    Args:
        host: a host of plain blocks; see `check_plain`.
        recorded: its forward pass.
        classes: int64 [B].
    """
    relevance = head_relevance(host, recorded, classes)
    found = []
    for block, seen in zip(reversed(list(host.blocks)), reversed(recorded.blocks), strict=True):
        relevance, attention = block_relevance(block, seen, relevance)
        found.append(attention)
    return found[::-1]


@torch.no_grad()
def head_relevance(host: VisionTransformer, recorded: Recording, classes: Tensor) -> Tensor:
    """Relevance of the tokens that leave the last block, float64 [B, P + N, D], sum 1."""
    tokens = recorded.head.outputs["norm"].double()  # [B, P + N, D]
    target = F.one_hot(classes, host.head.out_features).double()
    pooled = linear_rule(host.head.weight, recorded.head.inputs["head"], target)  # [B, D]
    relevance = torch.zeros_like(tokens)
    if host.global_pool == "token":
        relevance[:, 0] = pooled
        return relevance
    first = 0 if host.pool_include_prefix else host.num_prefix_tokens
    # A mean is a linear layer of equal weights: each channel's relevance goes where its value has the mean's sign.
    read, mean = tokens[:, first:], tokens[:, first:].mean(dim=1, keepdim=True)
    agreeing = torch.where(read * mean > 0, read, 0.0)
    relevance[:, first:] = agreeing * _divided(pooled.unsqueeze(1), agreeing.sum(dim=1, keepdim=True))
    return relevance


@torch.no_grad()
def block_relevance(block: Any, seen: Recorded, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of the tokens that enter a block and of its attention, from that of the tokens that leave it.

    Args:
        seen: what the block's modules saw.
        relevance: float64 [B, P + N, D].

    Returns:
        float64 [B, P + N, D] and [B, heads, P + N, P + N].
    """
    tokens, middle = seen.inputs["norm1"].double(), seen.inputs["norm2"].double()  # the residual stream
    of_middle, update = add_rule(middle, seen.outputs[""].double() - middle, relevance)
    for name in ("fc2", "fc1"):
        update = linear_rule(getattr(block.mlp, name).weight, seen.inputs[f"mlp.{name}"], update)
    of_tokens, update = add_rule(tokens, middle - tokens, of_middle + update)
    update = linear_rule(block.attn.proj.weight, seen.inputs["attn.proj"], update)
    of_qkv, of_attention = _attention_rule(block.attn, seen, update)
    update = linear_rule(block.attn.qkv.weight, seen.inputs["attn.qkv"], of_qkv)
    return of_tokens + update, of_attention


def linear_rule(weight: Tensor, inputs: Tensor, relevance: Tensor) -> Tensor:
    """Hand an output's relevance to its inputs by their share in its positive contributions; biases get none.

    Args:
        weight: [O, I].
        inputs: [..., I].
        relevance: [..., O].
    """
    weight, inputs = weight.detach().double(), inputs.detach().double()
    above, below = inputs.clamp(min=0), inputs.clamp(max=0)
    up, down = weight.clamp(min=0), weight.clamp(max=0)
    share = _divided(relevance, above @ up.T + below @ down.T)
    return above * (share @ up) + below * (share @ down)


def add_rule(left: Tensor, right: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Split the relevance of left + right [B, n, D]; each side's sum is set by its magnitude, so that the total stays.

    Shares per element alone would explode where the two sides cancel.
    """
    share = _divided(relevance, left + right)
    parts = left * share, right * share
    sums = [part.sum(dim=(1, 2), keepdim=True) for part in parts]
    total = relevance.sum(dim=(1, 2), keepdim=True)
    magnitude = sums[0].abs() + sums[1].abs()
    scaled = [part * _divided(total * own.abs(), own * magnitude) for part, own in zip(parts, sums, strict=True)]
    return scaled[0], scaled[1]


def product_rule(left: Tensor, right: Tensor, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of both factors of the matrix product left @ right; each gets half."""
    share = _divided(relevance, left @ right) / 2
    return left * (share @ right.transpose(-2, -1)), right * (left.transpose(-2, -1) @ share)


def check_plain(host: VisionTransformer) -> None:
    """Raise `UnsupportedModelError` unless the rules above cover every layer of `host` from its first block on."""
    for index, block in enumerate(host.blocks):
        attn, mlp = getattr(block, "attn", None), getattr(block, "mlp", None)
        norms = [getattr(*place, None) for place in ((attn, "q_norm"), (attn, "k_norm"), (attn, "norm"), (mlp, "norm"))]
        plain = type(mlp) is Mlp and all(isinstance(norm, nn.Identity) for norm in norms)
        if not plain or getattr(attn, "gate", None) is not None:
            raise UnsupportedModelError(
                f"relevance needs plain blocks, without norms inside attention or MLP and without gates; block {index} "
                "is not one: use method 'rollout'"
            )
    if not isinstance(host.head, nn.Linear) or getattr(host, "head_dist", None) is not None:
        raise UnsupportedModelError("relevance needs one linear head, which this host does not have: use 'rollout'")


def _attention_rule(attn: Any, seen: Recorded, relevance: Tensor) -> tuple[Tensor, Tensor]:
    """Relevance of the joint queries, keys and values [B, n, 3 * heads * head_dim] and of the attention."""
    batch, num_tokens, _ = relevance.shape
    split = (batch, num_tokens, -1, attn.num_heads, attn.head_dim)
    qkv = seen.outputs["attn.qkv"].double().reshape(split)
    queries, keys, values = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [B, heads, n, head_dim]
    per_head = relevance.reshape(split)[:, :, 0].transpose(1, 2)  # [B, heads, n, head_dim]
    attention = seen.outputs["attn.attn_drop"].double()
    of_attention, of_values = product_rule(attention, values, per_head)
    # Softmax and the scale pass relevance on unchanged.
    of_queries, of_keys = product_rule(queries, keys.transpose(-2, -1), of_attention)
    joint = torch.stack((of_queries, of_keys.transpose(-2, -1), of_values))  # [3, B, heads, n, head_dim]
    return joint.permute(1, 3, 0, 2, 4).reshape(batch, num_tokens, -1), of_attention


def _divided(value: Tensor, by: Tensor) -> Tensor:
    """value / by, 0 where `by` is as good as 0."""
    empty = by.abs() < _TINY
    return torch.where(empty, 0.0, value / torch.where(empty, 1.0, by))
