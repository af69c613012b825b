"""A graph between tokens, and passing dropped tokens on to their neighbours in it.

Source: Xu et al., "GTP-ViT: Efficient Vision Transformers via Graph-based Token Propagation", WACV 2024, section 3
(graphs, their normalisation, propagation).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from vidprune.types import TokenGrid


def spatial_neighbours(place: Tensor, grid: TokenGrid) -> Tensor:
    """Which tokens touch on the grid, diagonals included: 8 neighbours on an image, 26 among tubelets.

    Args:
        place: int64 [B, K], places on the grid in (t, h, w) order.

    Returns:
        bool [B, K, K], False on the diagonal.
    """
    t, rest = place // (grid.h * grid.w), place % (grid.h * grid.w)
    near = place.unsqueeze(2) != place.unsqueeze(1)  # [B, K, K]
    for axis in (t, rest // grid.w, rest % grid.w):
        near = near & ((axis.unsqueeze(2) - axis.unsqueeze(1)).abs() <= 1)
    return near


def semantic_neighbours(tokens: Tensor, num_neighbours: int) -> Tensor:
    """For each token, the `num_neighbours` others of highest cosine: bool [B, K, K], row by row, so not symmetric."""
    unit = F.normalize(tokens.float(), dim=-1)
    similarity = unit @ unit.transpose(1, 2)  # [B, K, K]
    others = torch.eye(tokens.shape[1], dtype=torch.bool, device=tokens.device)
    similarity = similarity.masked_fill(others, -torch.inf)
    count = min(num_neighbours, tokens.shape[1] - 1)
    order = torch.sort(similarity, dim=2, descending=True, stable=True).indices[:, :, :count]  # [B, K, count]
    return torch.zeros_like(similarity, dtype=torch.bool).scatter(2, order, True)


def normalised_graph(adjacency: Tensor) -> Tensor:
    """A_ij / sqrt(d_i d_j) with the row degrees d, float32 [B, K, K]. A token without neighbours passes nothing on."""
    inverse_root = adjacency.sum(dim=2).clamp(min=1).float().rsqrt()  # [B, K]
    return adjacency.float() * inverse_root.unsqueeze(2) * inverse_root.unsqueeze(1)


def propagate_tokens(
    tokens: Tensor, graph: Tensor, kept_index: Tensor, dropped_index: Tensor, alpha: float
) -> tuple[Tensor, Tensor]:
    """Kept tokens plus what reaches them from the dropped ones: x_kept + alpha W[kept, dropped] x_dropped.

    Args:
        tokens: [B, K, D], prefix tokens left out.
        graph: W, float32 [B, K, K].
        kept_index: int64 [B, K'].
        dropped_index: int64 [B, K - K'].

    Returns:
        Tokens [B, K', D] and the graph among them, [B, K', K'].
    """
    width = tokens.shape[-1]
    kept = tokens.gather(1, kept_index.unsqueeze(-1).expand(-1, -1, width))
    dropped = tokens.gather(1, dropped_index.unsqueeze(-1).expand(-1, -1, width))
    rows = graph.gather(1, kept_index.unsqueeze(-1).expand(-1, -1, graph.shape[-1]))  # [B, K', K]
    between = rows.gather(2, dropped_index.unsqueeze(1).expand(-1, rows.shape[1], -1))  # [B, K', K - K']
    among = rows.gather(2, kept_index.unsqueeze(1).expand(-1, rows.shape[1], -1))  # [B, K', K']
    return (kept.float() + alpha * (between @ dropped.float())).to(tokens.dtype), among
