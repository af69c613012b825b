"""STAR: in every block, keep the tokens that matter both here (attention) and to the end (scores made beforehand).

Source: Zhang et al., "Synergistic Patch Pruning for Vision Transformer: Unifying Intra- & Inter-Layer Patch
Importance", ICLR 2024: section 5.1 (fusion, Eq. 3 and 4), section 5.2 (retention rates), Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path

import torch
from torch import Tensor, nn

from vidprune.errors import ConfigError
from vidprune.pruners.attention_score import attention_score, check_score
from vidprune.pruners.base import BlockStep, HostInfo, InBlockStep, Pruner, RaggedBlockStep
from vidprune.pruners.calibration import Calibration, load_calibration
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.fusion import fuse_scores
from vidprune.tokens.mass import best_mask, mass_count
from vidprune.tokens.moves import Move, follow_moves
from vidprune.tokens.reduce import gather_tokens
from vidprune.tokens.rounding import ceil_count, check_ratio
from vidprune.tokens.select import top_k_index
from vidprune.tokens.state import TokenState

SCHEDULES = ("auto", "acs", "linear")


@dataclass(frozen=True)
class STAR(Pruner):
    """Keep ceil(p_l n) of the n tokens in block l, by intra-layer score^alpha times inter-layer score^(1 - alpha).

    Args:
        keep_ratio: the paper's rho, the rate of the last block; the first block keeps all. Rates multiply: 12 blocks
            with linear rates and rho = 0.7 leave 28 of 196 tokens. 1 changes nothing and equals the host bit for bit.
        alpha: weight of the attention in this block against the scores made beforehand; 0.15 for DeiT, 0.3 for LV-ViT.
        calibration: a file of `vidprune calibrate`, or a `Calibration`. Without one, attention alone ranks the tokens.
        schedule: where the rates p_l fall between 1 and rho. "acs": with the average cosine similarity of the
            calibration (Eq. 5), as published; "linear": evenly from block to block, a surrogate; "auto": the first
            where there is a calibration; or a similarity per block, a list of your own.
        score: as `EViT`: class attention, or a declared substitute for hosts without class token.
    """

    keep_ratio: float
    alpha: float = 0.15
    calibration: str | Path | Calibration | None = None
    schedule: str | Sequence[float] = "auto"
    score: str = "auto"
    name = "star"

    def __post_init__(self) -> None:
        check_ratio("keep_ratio", self.keep_ratio)
        check_score(self.score)
        if isinstance(self.alpha, bool) or not isinstance(self.alpha, Real) or not 0 <= float(self.alpha) <= 1:
            raise ConfigError(f"alpha must be a number in [0, 1], got {self.alpha!r}")
        if self.calibration is not None and not isinstance(self.calibration, str | Path | Calibration):
            raise ConfigError(f"calibration must be a file of `vidprune calibrate`, got {self.calibration!r}")
        if isinstance(self.schedule, Sequence) and not isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", tuple(self.schedule))  # hashable
            if not all(_is_finite(value) for value in self.schedule):
                raise ConfigError(f"schedule must hold one finite number per block, got {list(self.schedule)}")
        elif self.schedule not in SCHEDULES:
            raise ConfigError(
                f"schedule must be one of {', '.join(SCHEDULES)} or a list of numbers, got {self.schedule!r}"
            )
        if self.schedule == "acs" and self.calibration is None:
            raise ConfigError("schedule='acs' needs a calibration; make one with `vidprune calibrate`, or use 'linear'")

    def build(self, host: HostInfo) -> STARStep | AdaptiveSTARStep:
        return STARStep(self, host)

    def read_calibration(self, host: HostInfo) -> Calibration | None:
        """The calibration, if there is one. Raises `ConfigError` for one that was made for another host."""
        found = self.calibration
        calibration = load_calibration(found) if isinstance(found, str | Path) else found
        if calibration is not None:
            calibration.check_host(host)
        return calibration

    def similarity(self, host: HostInfo, calibration: Calibration | None) -> Sequence[float]:
        """One number per block, by which the rates fall. Raises `ConfigError` for a list of another length."""
        if not isinstance(self.schedule, str):
            if len(self.schedule) != host.depth:
                raise ConfigError(f"schedule names {len(self.schedule)} blocks, this host has {host.depth}")
            return self.schedule
        if self.schedule == "linear" or calibration is None:
            return range(host.depth)
        return [float(value) for value in calibration.similarity]


@dataclass(frozen=True)
class AdaptiveSTAR(STAR):
    """a-STAR: as `STAR`, but each block keeps the fewest tokens whose fused score adds up to p_l of the whole.

    How many that are depends on the input, and is never more than `STAR` keeps. Samples of one batch are independent.
    Fields as `STAR`. Section 5.2 and Algorithm 1, option 2.
    """

    name = "adaptive_star"

    def build(self, host: HostInfo) -> AdaptiveSTARStep:
        return AdaptiveSTARStep(self, host)


def retention_rates(similarity: Sequence[float], keep_ratio: float) -> tuple[float, ...]:
    """p_l = 1 - (1 - rho) (ACS_l - ACS_1) / (ACS_L - ACS_1), between 0 and 1 (STAR, section 5.2).

    Args:
        similarity: ACS_l of each of the L blocks.
        keep_ratio: rho.

    Raises:
        ConfigError: where the last block is not more redundant than the first, which the formula needs.
    """
    if keep_ratio == 1.0:
        return (1.0,) * len(similarity)
    first, rise = similarity[0], similarity[-1] - similarity[0]
    if not rise > 0:
        raise ConfigError(
            f"rates by similarity need more of it in the last block than in the first, got {similarity[-1]:.4g} and "
            f"{first:.4g}; use schedule='linear'"
        )
    return tuple(min(1.0, max(0.0, 1 - (1 - keep_ratio) * (value - first) / rise)) for value in similarity)


class FusedScore(nn.Module):
    """The fused score of tokens in a block, and the rates that follow from the same calibration."""

    inter_bits: Tensor | None

    def __init__(self, config: STAR, host: HostInfo) -> None:
        super().__init__()
        calibration = config.read_calibration(host)
        similarity = config.similarity(host, calibration)
        self.rates = retention_rates(similarity, float(config.keep_ratio))
        self.surrogate = isinstance(similarity, range)
        self.alpha = float(config.alpha)
        self.intra = attention_score(config.name, config.score, host)
        inter = None if calibration is None else torch.from_numpy(calibration.inter).view(torch.int32)
        # Kept as bits: a cast of the model to half precision must not round the scores.
        self.register_buffer("inter_bits", inter, persistent=False)

    def forward(self, seen: AttentionInputs, block: int, place: Tensor) -> Tensor:
        """float64 [B, K], sums to 1.

        Args:
            place: int64 [B, K], the original place of each token that is left. Scores are looked up by place: a map
                that is kept in the order of the tokens goes wrong after the first reduction.
        """
        intra = self.intra(seen)  # [B, K]
        if self.inter_bits is None:
            return fuse_scores(intra, torch.ones_like(intra), self.alpha)
        return fuse_scores(intra, self.inter_bits[block].view(torch.float32)[place], self.alpha)

    def most_left(self, block: int, num_tokens: int) -> int:
        """ceil(p_l n)."""
        return min(num_tokens, ceil_count(num_tokens, self.rates[block]))

    def notes(self) -> tuple[str, ...]:
        """Substitutes and clipped rates, one sentence each."""
        notes = list(self.intra.notes())
        if self.inter_bits is None:
            notes.append("no calibration: inter-layer scores are 1, so attention alone ranks the tokens")
        if self.surrogate:
            notes.append("retention rates fall evenly from block to block, a surrogate for measured similarity")
        clipped = [block for block, rate in enumerate(self.rates) if block and rate in (0.0, 1.0)]
        if clipped and min(self.rates) < 1.0:
            notes.append(f"the similarity of blocks {', '.join(map(str, clipped))} gives rates clipped to [0, 1]")
        return tuple(notes)


class _FusedScoreStep(InBlockStep):
    """What both steps take from the fused score: the most that it leaves of the tokens, its cost, its notes."""

    def __init__(self, config: STAR, host: HostInfo) -> None:
        super().__init__()
        self.score = FusedScore(config, host)

    def num_left(self, block: int, num_tokens: int) -> int:
        return self.score.most_left(block, num_tokens)

    def macs(self, block: int, num_tokens: int, num_left: int) -> float:
        return self.score.intra.macs(num_tokens)

    def notes(self, num_tokens: int) -> tuple[str, ...]:
        return self.score.notes()


class STARStep(_FusedScoreStep, BlockStep):
    """Keeps a fixed share of the tokens that are there in each block, by the fused score."""

    def __init__(self, config: STAR, host: HostInfo) -> None:
        super().__init__(config, host)
        self.host = host

    def forward(self, state: TokenState, seen: AttentionInputs, block: int, num_left: int) -> TokenState:
        if self.score.inter_bits is not None and state.grid != self.host.grid:
            raise ConfigError(
                f"the calibration is of token grid {self.host.grid.shape}, this input has {state.grid.shape}; "
                "use inputs of the host's own size"
            )
        place, _ = follow_moves(state.moves, len(state.tokens), state.grid.num_tokens, state.tokens.device)
        kept_index = top_k_index(self.score(seen, block, place), num_left)  # [B, K']
        return state.reduced(gather_tokens(state.tokens, kept_index, state.num_prefix), Move(kept_index))


class AdaptiveSTARStep(_FusedScoreStep, RaggedBlockStep):
    """Keeps in each block the fewest tokens of each sample whose fused score reaches the block's rate."""

    def acts(self, block: int, num_tokens: int) -> bool:
        return self.score.rates[block] < 1.0  # a rate of 1 keeps all, whatever a running sum says

    def keep(self, seen: AttentionInputs, block: int, place: Tensor) -> Tensor:
        scores = self.score(seen, block, place[None])  # [1, K]
        counts = mass_count(scores, self.score.rates[block])  # [1]
        return best_mask(scores, counts.clamp(max=self.score.most_left(block, len(place))))[0]


def _is_finite(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(float(value))
