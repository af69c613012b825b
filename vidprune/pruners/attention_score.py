"""Scores from attention that methods inside blocks share: what the class token looks at, or its declared substitute."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from vidprune.errors import ConfigError
from vidprune.pruners.base import HostInfo
from vidprune.tokens.attention import AttentionInputs

SCORES = ("auto", "class", "received")


@dataclass(frozen=True)
class AttentionScore:
    """How a step scores tokens on one host; called with what a block attended over, gives scores [B, K].

    Attributes:
        by_class: the attention that the class token pays; otherwise the mean attention that a token receives from all
            tokens that are not prefix tokens.
        host: the host it was made for.
    """

    by_class: bool
    host: HostInfo

    def __call__(self, seen: AttentionInputs) -> Tensor:
        prefix = self.host.num_prefix
        return seen.class_attention(prefix) if self.by_class else seen.received_attention(prefix)

    def macs(self, num_tokens: int) -> float:
        """Multiply-accumulates of the attention rows that score `num_tokens` tokens, prefix tokens not counted."""
        queries = 1 if self.by_class else num_tokens
        return float(queries * (self.host.num_prefix + num_tokens) * self.host.width)

    def notes(self) -> tuple[str, ...]:
        """What a reader must know: empty for class attention, which is what the papers use."""
        if self.by_class:
            return ()
        why = "as asked" if self.host.has_class_token else "this host has no class token"
        return (f"tokens are scored by the mean attention that they receive, not by class attention: {why}",)


def check_score(score: object) -> None:
    """Raise `ConfigError` unless `score` is one of `SCORES`."""
    if score not in SCORES:
        raise ConfigError(f"score must be one of {', '.join(SCORES)}, got {score!r}")


def attention_score(method: str, score: str, host: HostInfo) -> AttentionScore:
    """The score that `method` uses on `host`; "auto" is class attention where there is a class token.

    Raises:
        ConfigError: for class attention on a host without class token.
    """
    if score == "class" and not host.has_class_token:
        raise ConfigError(
            f"{method} with score='class' needs a class token, which this host does not have; "
            "use score='received', the mean attention that a token receives"
        )
    return AttentionScore(host.has_class_token if score == "auto" else score == "class", host)
