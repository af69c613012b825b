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
from vidprune.pruning import PrunedViT, host_of, input_shape, token_grid

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)

_GIGA = 1e9


@dataclass(frozen=True)
class FlopsReport:
    """Cost of one view in GMACs.

    Attributes:
        dense_gmacs: the host with every token.
        vit_gmacs: the host on the kept tokens.
        proposal_gmacs: what deciding costs, apart.
        num_tokens: tokens of the dense host, prefix included.
        token_counts: tokens entering each block, prefix included.
        convention: "matmul" (matrix products and convolutions) or "fvcore" (plus its 5 per LayerNorm element).
    """

    dense_gmacs: float
    vit_gmacs: float
    proposal_gmacs: float
    num_tokens: int
    token_counts: tuple[int, ...]
    convention: str

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
    num_tokens = token_grid(host).num_tokens + int(host.num_prefix_tokens)
    dense_counts = (num_tokens,) * len(host.blocks)
    dense = _vit_macs(host, dense_counts, convention)
    if not isinstance(model, PrunedViT):
        return FlopsReport(dense / _GIGA, dense / _GIGA, 0.0, num_tokens, dense_counts, convention)
    counts = model.token_counts()
    shape = input_shape(host)
    clip_shape = (shape[2], shape[3], shape[4]) if len(shape) == 5 else (1, shape[2], shape[3])
    proposal = sum(step.gmacs(clip_shape) for step in model.step_list())
    return FlopsReport(
        dense / _GIGA, _vit_macs(host, counts, convention) / _GIGA, proposal, num_tokens, counts, convention
    )


def _vit_macs(host: VisionTransformer, token_counts: Sequence[int], convention: str) -> float:
    """MACs of embedding, blocks and head, the blocks running on `token_counts` tokens each."""
    width = int(host.embed_dim)
    embed = host.patch_embed.proj  # every token is embedded: pruning comes after
    macs = token_grid(host).num_tokens * embed.weight.numel()
    for block, tokens in zip(host.blocks, token_counts, strict=True):
        macs += tokens * (4 * width * width + 2 * tokens * width)  # qkv and output; scores and their use
        macs += 2 * tokens * width * block.mlp.fc1.out_features
    if isinstance(host.head, nn.Linear):
        macs += host.head.weight.numel()
    if convention == "fvcore":
        normed_at_end = 1 if isinstance(host.norm, nn.Identity) else token_counts[-1]  # fc_norm sees the pooled vector
        macs += 5 * width * (2 * sum(token_counts) + normed_at_end)
    return float(macs)
