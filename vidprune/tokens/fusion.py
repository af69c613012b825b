"""Two scores of the same tokens as one.

Source: Zhang et al., "Synergistic Patch Pruning for Vision Transformer: Unifying Intra- & Inter-Layer Patch
Importance" (STAR), ICLR 2024, section 5.1.
"""

from __future__ import annotations

import torch
from torch import Tensor


def fuse_scores(intra: Tensor, inter: Tensor, alpha: float) -> Tensor:
    """The distribution p that minimises alpha KL(p || intra) + (1 - alpha) KL(p || inter) (STAR, Eq. 3 and 4).

    It is intra^alpha * inter^(1 - alpha), scaled to sum to 1; so neither score needs to be normalised before.

    Args:
        intra, inter: [..., K], none negative; broadcast against each other.
        alpha: weight of `intra`, in [0, 1]. 1 gives `intra` alone, 0 `inter` alone.

    Returns:
        float64 [..., K], because the running sums that are taken of it must reach 1. Zeros where all scores are zero.
    """
    fused = intra.double().pow(alpha) * inter.double().pow(1 - alpha)  # 0 to the power of 0 is 1
    return fused / fused.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
