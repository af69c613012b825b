"""STA: at three blocks, drop from each time slot the tokens that repeat earlier slots and stand out least.

Source: Ding et al., "Prune Spatio-temporal Tokens by Semantic-aware Temporal Accumulation", ICCV 2023, section 3, and
the settings of the authors' release for VideoMAE. Differences are in docs/methods/sta.md.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vidprune.errors import ConfigError
from vidprune.pruners.base import BlockStep, HostInfo, Pruner
from vidprune.pruners.tome import is_count
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.merge import bipartite_match, max_merged
from vidprune.tokens.moves import Move
from vidprune.tokens.reduce import gather_tokens
from vidprune.tokens.select import top_k_index
from vidprune.tokens.state import TokenState


@dataclass(frozen=True)
class STA(Pruner):
    """Drop `num_pruned` tokens from each time slot at the first block and at a third and two thirds of the depth.

    The t time steps of the grid are t slots at the first site, t / 2 at the second and t / 4 at the third; the second
    goes through time backwards. Video only, and on all tokens: nothing may prune before it.

    Args:
        num_pruned: the paper's r, tokens per slot; the authors use 16 to 96 of 196. A slot loses half of its tokens at
            most: a larger number is clamped, and the notes of the result say so. 0 equals the host bit for bit.
    """

    num_pruned: int
    name = "sta"

    def __post_init__(self) -> None:
        if not is_count(self.num_pruned):
            raise ConfigError(f"num_pruned must be a whole number from 0, got {self.num_pruned!r}")

    def build(self, host: HostInfo) -> STAStep:
        return STAStep(self.num_pruned, host)


@dataclass(frozen=True)
class Site:
    """One of the three places: slots of equal size, the tokens that each loses, and the direction of time."""

    slots: int
    slot_size: int
    dropped: int
    backwards: bool

    @property
    def num_tokens(self) -> int:
        return self.slots * self.slot_size

    @property
    def num_left(self) -> int:
        return self.slots * (self.slot_size - self.dropped)


class STAStep(BlockStep):
    """Accumulates, slot by slot, how much of a token was seen before, and drops by that."""

    def __init__(self, num_pruned: int, host: HostInfo) -> None:
        super().__init__()
        if host.grid.t < 2 or host.grid.t % 4:
            raise ConfigError(
                f"sta halves the time steps of a video twice, so their number must be a multiple of 4, "
                f"got {host.grid.t}; use ToMe or PaPr on images"
            )
        self.num_pruned = num_pruned
        self.num_prefix = host.num_prefix
        self.head_dim = host.width // host.num_heads
        self.sites: dict[int, Site] = {}
        num_tokens = host.grid.num_tokens
        for stage in range(3):
            block, slots = host.depth * stage // 3, host.grid.t // 2**stage
            if block not in self.sites:  # hosts of one or two blocks have fewer sites
                size = num_tokens // slots
                site = Site(slots, size, min(num_pruned, max_merged(size)), backwards=stage == 1)
                self.sites[block] = site
                num_tokens = site.num_left

    def num_left(self, block: int, num_tokens: int) -> int:
        site = self.sites.get(block)
        if site is None:
            return num_tokens
        if site.num_tokens != num_tokens:
            raise ConfigError(
                f"sta needs the same number of tokens in every time slot, {site.num_tokens} in block {block}, "
                f"got {num_tokens}; leave out the method before it"
            )
        return site.num_left

    def macs(self, block: int, num_tokens: int, num_left: int) -> float:
        site = self.sites[block]
        size, half = site.slot_size, site.slot_size // 2
        within = half * (size - half) * self.head_dim
        earlier = [size] + [size - site.dropped] * (site.slots - 2)  # tokens of the slot before, from the second on
        return float(within + sum(size * count * (self.head_dim + 1) for count in earlier[: site.slots - 1]))

    def notes(self, num_tokens: int) -> tuple[str, ...]:
        clamped = [block for block, site in self.sites.items() if site.dropped < self.num_pruned]
        if not clamped:
            return ()
        return (f"num_pruned is clamped to half of a slot's tokens in blocks {', '.join(map(str, clamped))}",)

    def forward(self, state: TokenState, seen: AttentionInputs, block: int, num_left: int) -> TokenState:
        site, prefix = self.sites[block], self.num_prefix
        with torch.no_grad():
            keys = seen.keys[:, :, prefix:].float().mean(dim=1)  # [B, K, head_dim]
            kept_index = kept_by_accumulation(keys, state.tokens[:, prefix:].float().abs().sum(dim=-1), site)
        return state.reduced(gather_tokens(state.tokens, kept_index, prefix), Move(kept_index))


def kept_by_accumulation(features: Tensor, activation: Tensor, site: Site) -> Tensor:
    """Which tokens stay, int64 [B, K'] ascending.

    The first slot loses the even-numbered tokens most like one of its odd-numbered ones. From then on every token of
    the slot before hands its score on to the tokens of this one, in shares softmax(cosine); a token's accumulated
    score times (1 - activation, scaled to [0, 1] within the slot) is its STA score, and the highest go. The scores of
    those that stay are scaled to sum to 1 before they are handed on.

    Args:
        features: float32 [B, K, C], the keys averaged over heads, tokens in order of time.
        activation: float32 [B, K], the sum of magnitudes of each token's features.
    """
    batch = len(features)
    slots = F.normalize(features, dim=-1).view(batch, site.slots, site.slot_size, -1)
    activation = activation.view(batch, site.slots, site.slot_size)
    low, high = activation.amin(dim=2, keepdim=True), activation.amax(dim=2, keepdim=True)
    dullness = 1 - (activation - low) / (high - low).clamp(min=1e-12)  # [B, T, n]
    order = range(site.slots)[::-1] if site.backwards else range(site.slots)
    num_kept = site.slot_size - site.dropped
    kept: dict[int, Tensor] = {}
    for position, slot in enumerate(order):
        current = slots[:, slot]  # [B, n, C]
        if position == 0:
            kept[slot] = bipartite_match(current, site.dropped).kept.sort(dim=1).values
            earlier = current
            score = torch.ones(batch, site.slot_size, 1, device=features.device)
            continue
        shares = (current @ earlier.transpose(1, 2)).softmax(dim=1)  # [B, n, m]; each column sums to 1
        score = shares @ score  # [B, n, 1]
        kept[slot] = top_k_index(-score[..., 0] * dullness[:, slot], num_kept)
        earlier, score = gather_tokens(current, kept[slot]), gather_tokens(score, kept[slot])
        score = score / score.sum(dim=1, keepdim=True)
    return torch.cat([kept[slot] + slot * site.slot_size for slot in range(site.slots)], dim=1)
