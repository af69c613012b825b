"""What a block's attention looked at. The attention output itself stays a fused kernel; rows are computed on demand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AttentionInputs:
    """Queries, keys and values of one block, all tokens, prefix first, after the block's own q and k norms.

    Attributes:
        queries, keys, values: [B, heads, P + K, head_dim].
        scale: what queries are multiplied by before the product with the keys.
        bias: [B, 1, 1, P + K], added to the logits of each key; None without one.
    """

    queries: Tensor
    keys: Tensor
    values: Tensor
    scale: float
    bias: Tensor | None = None

    def class_attention(self, num_prefix: int) -> Tensor:
        """Attention that the first token pays to each non-prefix token, mean over heads, float32 [B, K].

        Softmax runs over all keys, prefix included. (EViT, ICLR 2022, section 3.2.)
        """
        probs = self.head_rows(slice(None), slice(0, 1))  # [B, heads, 1, P + K]
        return probs.mean(dim=1)[:, 0, num_prefix:]

    def received_attention(self, num_prefix: int) -> Tensor:
        """Attention that each non-prefix token receives from all non-prefix tokens, mean over heads, float32 [B, K].

        One head at a time: the square matrix of 1568 tubelets and 12 heads would take 118 MB per view.
        """
        total = torch.zeros((), device=self.keys.device)
        num_heads = self.queries.shape[1]
        for head in range(num_heads):
            probs = self.head_rows(slice(head, head + 1), slice(num_prefix, None))  # [B, 1, K, P + K]
            total = total + probs.mean(dim=(1, 2))  # [B, P + K]
        return total[:, num_prefix:] / num_heads

    def regarded_attention(self, num_prefix: int) -> Tensor:
        """Largest diagonal attention over heads times largest received attention over heads, float32 [B, K].

        What a token keeps of itself, times the sum of what all tokens, prefix included, pay to it. (GTP-ViT, WACV 2024,
        section 3.2, its default score.)
        """
        own = received = torch.zeros((), device=self.keys.device)
        for head in range(self.queries.shape[1]):  # one head at a time, as above
            probs = self.head_rows(slice(head, head + 1), slice(None))[:, 0]  # [B, P + K, P + K]
            own = torch.maximum(own, probs.diagonal(dim1=1, dim2=2))  # [B, P + K]; attention is never negative
            received = torch.maximum(received, probs.sum(dim=1))
        return (own * received)[:, num_prefix:]

    def head_rows(self, heads: slice, rows: slice) -> Tensor:
        """Attention of some queries in some heads, float32 [B, heads, rows, P + K]; carries no gradient."""
        queries = self.queries.detach()[:, heads, rows].float() * self.scale
        logits = queries @ self.keys.detach()[:, heads].float().transpose(-2, -1)
        return (logits if self.bias is None else logits + self.bias.float()).softmax(dim=-1)
