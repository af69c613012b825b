"""A table of published costs, each beside the cost counted here: `vidprune flops --table`.

convention: fvcore
rows:
  - {name: PaPr ViT-B z .5, source: "PaPr, table 1", published: 8.98, model: timm/vit_base_patch16_224,
     method: {name: papr, keep_ratio: 0.5, proposal: mobileone_s0}}
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import ROUND_DOWN, ROUND_HALF_UP, Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import nn

from vidprune.config import build_methods, read_data, without_weights
from vidprune.config.building import share_proposals
from vidprune.config.classes import DEMO, ModelConfig
from vidprune.config.fields import build, checked_keys
from vidprune.errors import ConfigError
from vidprune.profiling.flops import CONVENTIONS, FlopsReport, counts_plan, flops
from vidprune.proposals import create_proposal
from vidprune.proposals.base import Proposal

Proposals = dict[Hashable, Proposal]

TOLERANCE_PERCENT = 0.5
DENSE = {"name": "dense"}


@dataclass(frozen=True)
class TableRow:
    """One published figure and what costs it.

    Attributes:
        name: of the row, for the reader.
        source: paper and table.
        published: GFLOPs as printed, a number or the text of one, whose digits count: 34.4 is 34.4 rounded or cut off.
        model: a name of `create_model`.
        method: as in every config: a mapping, a list of them, or dense.
        token_counts, mlp_token_counts: instead of a method, tokens entering each block and each MLP, prefix included.
        added_linears: linear layers that the method adds to the host, each as [tokens, inputs, outputs].
        proposal_side: pixels a side of the proposal's input in the published count, where that is not the model's.
        labelled: fields of the method as the paper labels the row, where the label cannot be what was counted.
        note: what a reader must know of the row.
    """

    name: str
    source: str
    published: float | str
    model: str
    method: Any = field(default_factory=lambda: dict(DENSE))
    token_counts: Sequence[int] | None = None
    mlp_token_counts: Sequence[int] | None = None
    added_linears: Sequence[Sequence[int]] = ()
    proposal_side: int | None = None
    labelled: Mapping[str, Any] | None = None
    note: str = ""


@dataclass(frozen=True)
class CountedRow:
    """A row and its cost.

    Attributes:
        report: what its model and method cost.
        added_gmacs: the row's `added_linears`.
        labelled_gmacs: what the label would cost, where the row has one.
    """

    row: TableRow
    report: FlopsReport
    added_gmacs: float
    labelled_gmacs: float | None

    @property
    def gmacs(self) -> float:
        """Everything, the proposal included."""
        return self.report.total_gmacs + self.added_gmacs

    @property
    def difference_percent(self) -> float:
        """How far the count is from the published figure, which may have lost digits."""
        return 100 * (self.gmacs / float(self.row.published) - 1)

    @property
    def reproduced(self) -> bool:
        """Whether the count is the published figure to its digits, rounded or cut off, or within half a percent."""
        published = Decimal(str(self.row.published))
        roundings = [Decimal(self.gmacs).quantize(published, rounding) for rounding in (ROUND_HALF_UP, ROUND_DOWN)]
        return published in roundings or abs(self.difference_percent) <= TOLERANCE_PERCENT

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for CSV and JSON."""
        counts, last = self.report.token_counts, self.report.mlp_token_counts[-1]
        return {
            "name": self.row.name,
            "source": self.row.source,
            "model": self.row.model,
            "method": describe_method(self.row),
            "tokens": f"{counts[0]}" if counts[0] == last else f"{counts[0]} to {last}",
            "published_gflops": self.row.published,
            "gflops": round(self.gmacs, 3),
            "of_which_proposal": round(self.report.proposal_gmacs, 3),
            "dense_gflops": round(self.report.dense_gmacs, 3),
            "difference_percent": round(self.difference_percent, 2),
            "reproduced": "yes" if self.reproduced else "no",
            "gflops_as_labelled": "" if self.labelled_gmacs is None else round(self.labelled_gmacs, 3),
            "note": self.row.note,
        }


def read_table(path: str | Path) -> tuple[str, tuple[TableRow, ...]]:
    """The convention and the rows of a YAML table. Raises `ConfigError` for what it cannot hold, naming the row."""
    data = checked_keys(("convention", "rows"), read_data(path), str(path))
    convention, rows = data.get("convention", "matmul"), data.get("rows")
    if convention not in CONVENTIONS:
        raise ConfigError(f"{path}: convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: rows must be a list of rows, got {rows!r}")
    return convention, tuple(_read_row(row, f"{path}: row {number}") for number, row in enumerate(rows, start=1))


def _read_row(data: object, where: str) -> TableRow:
    row: TableRow = build(TableRow, data, where)
    try:
        positive = float(row.published) > 0
    except (TypeError, ValueError):
        positive = False
    if not positive:
        raise ConfigError(f"{where}: published must be a number of GFLOPs above 0, got {row.published!r}")
    if row.token_counts is not None and row.method != DENSE:
        raise ConfigError(f"{where}: token_counts stand for a method, so a row has one or the other")
    return row


def count_rows(rows: Sequence[TableRow], convention: str) -> list[CountedRow]:
    """The cost of every row's model and method, and of what its label says. Proposals that rows share are made once."""
    made: Proposals = {}
    return [_count_row(row, convention, made) for row in rows]


def _count_row(row: TableRow, convention: str, made: Proposals) -> CountedRow:
    added = sum(tokens * inputs * outputs for tokens, inputs, outputs in row.added_linears) / 1e9
    labelled = None
    if row.labelled is not None:
        steps = without_weights(row.method)
        labelled = count_model(row.model, [steps[0] | dict(row.labelled), *steps[1:]], convention, made).total_gmacs
    if row.token_counts is not None:
        plan = counts_plan(row.token_counts, row.mlp_token_counts)
        return CountedRow(row, flops(meta_host(row.model), convention=convention, plans=[plan]), added, labelled)
    report = count_model(row.model, row.method, convention, made)
    if row.proposal_side is not None:
        report = replace(report, proposal_gmacs=_proposal_gmacs(row, convention))
    return CountedRow(row, report, added, labelled)


def _proposal_gmacs(row: TableRow, convention: str) -> float:
    """Cost of the row's proposal on images of `proposal_side` pixels a side."""
    side = row.proposal_side or 0
    proposal = create_proposal(without_weights(row.method)[0]["proposal"])
    extra = proposal.norm_gmacs((1, side, side)) if convention == "fvcore" else 0.0
    return proposal.gmacs((1, side, side)) + extra


def count_model(model_name: str, method: object, convention: str, made: Proposals | None = None) -> FlopsReport:
    """The cost of a named model under a method as in a config; neither's weights are read.

    Args:
        made: proposals made so far, which are used again; this call adds its own.
    """
    from vidprune.pruning import prune

    steps = without_weights(method)
    methods = share_proposals(build_methods(steps, ModelConfig(name=model_name)), {} if made is None else made)
    host = meta_host(model_name)
    return flops(prune(host, methods, self_check=False) if methods else host, convention=convention)


@lru_cache(maxsize=32)
def meta_host(model_name: str) -> nn.Module:
    """The named model without memory for its weights."""
    import torch

    from vidprune.models import create_model

    with torch.device("meta"):
        return create_model("videomae_tiny" if model_name == DEMO else model_name)


def describe_method(row: TableRow) -> str:
    """The method in one line, `papr keep_ratio=0.5 proposal=x3d_s + tome r=8`."""
    if row.token_counts is not None:
        return "published token counts"
    steps = without_weights(row.method)
    return " + ".join(" ".join([str(s["name"]), *(f"{k}={v}" for k, v in s.items() if k != "name")]) for s in steps)
