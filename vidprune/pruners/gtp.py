"""GTP: in every block, drop the least regarded tokens after passing them on to their neighbours in a graph.

Source: Xu et al., "GTP-ViT: Efficient Vision Transformers via Graph-based Token Propagation", WACV 2024, section 3.
Its optional sparsification of the attention matrix is not offered: attention stays a fused kernel here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from numbers import Real

import torch

from vidprune.errors import ConfigError
from vidprune.pruners.base import BlockStep, HostInfo, Pruner
from vidprune.pruners.tome import is_count
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.moves import Move, follow_moves
from vidprune.tokens.propagate import normalised_graph, propagate_tokens, semantic_neighbours, spatial_neighbours
from vidprune.tokens.select import split_index
from vidprune.tokens.state import TokenState

GRAPHS = ("mixed", "spatial", "semantic")


@dataclass(frozen=True)
class GTP(Pruner):
    """Drop `num_propagated` tokens in each block, and add what the graph carries from them to the tokens that stay.

    Args:
        num_propagated: the paper's P, tokens to drop per block; 0 equals the host bit for bit. One token always stays.
        alpha: how strongly a dropped token reaches its neighbours; the paper searches a grid, 0.1 for DeiT-B at P = 8.
        graph: "spatial" joins tokens that touch on the grid (in time too, for tubelets, which is ours), "semantic"
            the `num_neighbours` nearest by cosine of the embedded tokens, "mixed" both.
        num_neighbours: of the semantic graph.
        proportional_attention: let the size of a token, grown by what it received, count in the attention.
    """

    num_propagated: int
    alpha: float = 0.1
    graph: str = "mixed"
    num_neighbours: int = 8
    proportional_attention: bool = False
    name = "gtp"

    def __post_init__(self) -> None:
        if not is_count(self.num_propagated):
            raise ConfigError(f"num_propagated must be a whole number from 0, got {self.num_propagated!r}")
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, Real) or not 0 <= float(self.alpha) <= 1:
            raise ConfigError(f"alpha must be a number in [0, 1], got {self.alpha!r}")
        if self.graph not in GRAPHS:
            raise ConfigError(f"graph must be one of {', '.join(GRAPHS)}, got {self.graph!r}")
        if not is_count(self.num_neighbours) or self.num_neighbours < 1:
            raise ConfigError(f"num_neighbours must be a whole number from 1, got {self.num_neighbours!r}")

    def build(self, host: HostInfo) -> GTPStep:
        return GTPStep(self, host)


class GTPStep(BlockStep):
    """Drops a fixed number of tokens per block along a graph made once per forward."""

    def __init__(self, config: GTP, host: HostInfo) -> None:
        super().__init__()
        self.config = config
        self.num_prefix = host.num_prefix
        self.width = host.width
        self.proportional = config.proportional_attention

    def num_left(self, block: int, num_tokens: int) -> int:
        return max(1, num_tokens - self.config.num_propagated)

    def macs(self, block: int, num_tokens: int, num_left: int) -> float:
        scoring = (self.num_prefix + num_tokens) ** 2 * self.width  # the attention matrix once more, head by head
        values = self.width + self.proportional
        return float(scoring + num_left * (num_tokens - num_left) * values)

    def prepare_macs(self, num_tokens: int) -> float:
        return 0.0 if self.config.graph == "spatial" else float(num_tokens**2 * self.width)

    def prepare(self, state: TokenState) -> TokenState:
        patches = state.tokens.detach()[:, self.num_prefix :]  # [B, K, D]; no gradient through the graph
        adjacency = torch.zeros((), dtype=torch.bool, device=patches.device)
        if self.config.graph != "semantic":
            place, _ = follow_moves(state.moves, patches.shape[0], state.grid.num_tokens, patches.device)
            adjacency = adjacency | spatial_neighbours(place, state.grid)
        if self.config.graph != "spatial":
            adjacency = adjacency | semantic_neighbours(patches, self.config.num_neighbours)
        return replace(state, graph=normalised_graph(adjacency))

    def forward(self, state: TokenState, seen: AttentionInputs, block: int, num_left: int) -> TokenState:
        assert state.graph is not None, "prepare runs before the first block"
        prefix = self.num_prefix
        kept_index, dropped_index = split_index(seen.regarded_attention(prefix), num_left)
        patches, sizes = state.tokens[:, prefix:], state.sizes
        if self.proportional:
            # The size of a token grows by the same rule as the token, as one more channel of it.
            sizes = torch.ones(state.tokens.shape[:2], device=patches.device) if sizes is None else sizes
            patches = torch.cat((patches.float(), sizes[:, prefix:].unsqueeze(-1)), dim=-1)  # [B, K, D + 1]
        kept, graph = propagate_tokens(patches, state.graph, kept_index, dropped_index, float(self.config.alpha))
        if self.proportional and sizes is not None:
            sizes = torch.cat((sizes[:, :prefix], kept[..., -1]), dim=1)  # [B, P + K']
            kept = kept[..., :-1].to(state.tokens.dtype)
        tokens = torch.cat((state.tokens[:, :prefix], kept), dim=1)  # [B, P + K', D]
        return replace(state.reduced(tokens, Move(kept_index), sizes), graph=graph)
