"""Blocks on samples of different token counts: see `tokens.packed` for the form and why it was chosen."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from vidprune.pruners.base import RaggedBlockStep
from vidprune.pruners.block_parts import (
    BlockPlan,
    attention_inputs,
    attention_output,
    is_composable,
    project_output,
)
from vidprune.tokens.attention import AttentionInputs
from vidprune.tokens.packed import PackedState, as_packed, marked_first, read_counts, unpack
from vidprune.tokens.state import TokenState

Plans = tuple[tuple[BlockPlan, ...], ...]


def run_packed(
    blocks: Iterable[nn.Module], state: TokenState | PackedState, step: RaggedBlockStep | None
) -> list[tuple[TokenState, tuple[BlockPlan, ...]]]:
    """All blocks, the samples packed from the first block on in which `step` acts.

    Returns:
        Each sample as a batch of one, and what each block did to it; or all of them together while nothing acted.
    """
    history: list[list[BlockPlan]] = []  # per block, per sample
    for index, block in enumerate(blocks):
        counts = state.counts if isinstance(state, PackedState) else (state.tokens.shape[1],) * len(state.tokens)
        acting = step if step is not None and step.acts(index, max(counts) - state.num_prefix) else None
        if isinstance(state, TokenState) and acting is None:
            state = replace(state, tokens=block(state.tokens))
        else:
            packed = as_packed(state) if isinstance(state, TokenState) else state
            state = packed_block(block, packed, acting, index)
        left = state.counts if isinstance(state, PackedState) else counts
        history.append([_plan(*pair, acting is not None) for pair in zip(counts, left, strict=True)])
    plans = [tuple(plan) for plan in zip(*history, strict=True)]
    return [(state, plans[0])] if isinstance(state, TokenState) else list(zip(unpack(state), plans, strict=True))


def packed_block(block: Any, state: PackedState, step: RaggedBlockStep | None, index: int) -> PackedState:
    """One block; `step` chooses which tokens of each sample go on from its attention. A block of a kind that cannot
    run from its parts is called with one sample after the other.
    """
    tokens = state.tokens
    if step is None and not is_composable(block):
        return replace(state, tokens=torch.cat([block(part) for part in tokens.split(state.counts, dim=1)], dim=1))
    normed = block.norm1(tokens)
    samples = _per_sample(attention_inputs(block.attn, normed), state.counts)
    if step is not None:
        with torch.no_grad():
            marks = [step.keep(seen, index, place) for seen, place in zip(samples, state.places, strict=True)]
            counts = read_counts(torch.stack([mark.sum() for mark in marks]))
            kept = [marked_first(mark)[:count] for mark, count in zip(marks, counts, strict=True)]
        samples = [_with_queries(seen, place, state.num_prefix) for seen, place in zip(samples, kept, strict=True)]
        rows = state.rows(kept)
        tokens, normed = tokens[:, rows], normed[:, rows]
        state = state.reduced(tokens, kept)
    output = torch.cat([attention_output(block.attn, seen) for seen in samples], dim=2)  # [1, heads, S', head_dim]
    tokens = tokens + block.drop_path1(block.ls1(project_output(block.attn, output, normed)))
    return replace(state, tokens=tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens)))))


def _per_sample(seen: AttentionInputs, counts: tuple[int, ...]) -> list[AttentionInputs]:
    parts = zip(*(part.split(counts, dim=2) for part in (seen.queries, seen.keys, seen.values)), strict=True)
    return [replace(seen, queries=queries, keys=keys, values=values) for queries, keys, values in parts]


def _with_queries(seen: AttentionInputs, kept: Tensor, num_prefix: int) -> AttentionInputs:
    """The same keys and values, asked by the prefix tokens and the tokens `kept` alone."""
    prefix, others = seen.queries.split((num_prefix, seen.queries.shape[2] - num_prefix), dim=2)
    return replace(seen, queries=torch.cat((prefix, others[:, :, kept]), dim=2))


def _plan(entering: int, leaving: int, acts: bool) -> BlockPlan:
    return BlockPlan(entering, leaving, acts, composed=acts, rows=leaving if acts else None)
