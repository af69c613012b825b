"""ATS: in each block, sample tokens by what the class token sees in them; how many are left depends on the input.

Source: Fayyaz et al., "Adaptive Token Sampling for Efficient Vision Transformers", ECCV 2022, section 3: token scoring
and token sampling; the sampling levels and the least number of samples are those of the released code.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.pruners.attention_score import AttentionScore
from vidprune.pruners.base import HostInfo, RaggedBlockStep
from vidprune.pruners.evit import AttentionPruner
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.rounding import round_count
from vidprune.tokens.sampling import inverse_cdf_mask


@dataclass(frozen=True)
class ATS(AttentionPruner):
    """Draw K tokens from those that are there, by score; a token drawn twice counts once, so at most K are left.

    Args:
        keep_ratio: K as a share of the tokens that enter the block, the class token, which always stays, included. Even
            1 is not the host: many of K = N draws meet in the tokens that matter, and the lowest score is never drawn.
        blocks: the blocks that draw, counted from 0; by default all from a quarter of the depth on, 3 to 11 of 12, as
            published.
        score: attention times the length of the token's value vector. "class" attention is the paper's; "received", the
            mean attention that a token receives, a substitute for hosts without class token; "auto" takes the first
            where it can.
        min_samples: K is not less than this, as released; where as few tokens are there, fewer may still be left.
    """

    min_samples: int = 8
    name = "ats"

    def __post_init__(self) -> None:
        super().__post_init__()
        if type(self.min_samples) is not int or self.min_samples < 1:
            raise ConfigError(f"min_samples must be a whole number from 1, got {self.min_samples!r}")

    def sites(self, depth: int) -> tuple[int, ...]:
        return tuple(range(depth // 4, depth)) if self.blocks is None else super().sites(depth)

    def build(self, host: HostInfo) -> ATSStep:
        return ATSStep(self, self.score_on(host), host)


class ATSStep(RaggedBlockStep):
    """Draws from each sample's own tokens."""

    def __init__(self, config: ATS, score: AttentionScore, host: HostInfo) -> None:
        super().__init__()
        self.keep_ratio = float(config.keep_ratio)
        self.min_samples = config.min_samples
        self.blocks = frozenset(config.sites(host.depth))
        self.score = score
        self.num_prefix = host.num_prefix
        self.num_class_tokens = int(host.has_class_token)

    def acts(self, block: int, num_tokens: int) -> bool:
        return block in self.blocks

    def num_left(self, block: int, num_tokens: int) -> int:
        """The most that may be left: K without the class token, which takes one draw."""
        drawn = max(self.min_samples, round_count(num_tokens + self.num_class_tokens, self.keep_ratio))
        return max(1, min(num_tokens, drawn - self.num_class_tokens))

    def macs(self, block: int, num_tokens: int, num_left: int) -> float:
        return self.score.macs(num_tokens)

    def notes(self, num_tokens: int) -> tuple[str, ...]:
        return self.score.notes()

    def keep(self, seen: AttentionInputs, block: int, place: Tensor) -> Tensor:
        values = seen.values[0, :, self.num_prefix :].float()  # [heads, K, head_dim]
        scores = self.score(seen)[0] * values.norm(dim=(0, 2))  # [K]; norm of the heads' values, concatenated
        return inverse_cdf_mask(scores, self.num_left(block, len(place)))
