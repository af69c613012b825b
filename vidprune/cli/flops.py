"""`vidprune flops`: what a model costs per view, dense and pruned, counted from shapes."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from vidprune.cli import options as opt


def flops(
    model: opt.Model = None,
    method: opt.Method = None,
    keep_ratio: Annotated[
        list[float] | None, typer.Option(help="Share of tokens that stay, in (0, 1]; repeat for more rows.")
    ] = None,
    proposal: opt.Proposal = None,
    input_treatment: opt.InputTreatment = None,
    method_option: opt.MethodOptions = None,
    convention: Annotated[str, typer.Option(help="matmul, or fvcore (adds its LayerNorm count).")] = "matmul",
    config: opt.Config = None,
    settings: opt.Settings = None,
    as_json: opt.Json = False,
) -> None:
    """GFLOPs per view (multiply-accumulates, as the papers count), the proposal apart. Needs no weights."""
    rows = []
    for ratio in keep_ratio or [None]:  # type: ignore[list-item]  # None: the config's, or the default
        run = opt.resolve(
            config,
            model={"name": model},
            method=opt.method_fields(
                method, method_option, keep_ratio=ratio, proposal=proposal, input_treatment=input_treatment
            ),
            views={},
            settings=settings,
        )
        rows.append(_row(run.model.name, run.method, convention))
    if as_json:
        for row in rows:
            print(json.dumps(row))
    else:
        _print_table(rows)


def _row(model_name: str, method: object, convention: str) -> dict[str, Any]:
    import torch

    from vidprune.config import DEMO, ModelConfig, build_methods, without_weights
    from vidprune.models import create_model
    from vidprune.profiling.flops import flops as count
    from vidprune.pruning import prune

    steps = without_weights(method)  # counting needs none
    fields = {k: v for step in reversed(steps) for k, v in step.items()}  # of a chain, the first step's come first
    fields["name"] = "+".join(step["name"] for step in steps)
    with torch.device("meta"):
        host = create_model("videomae_tiny" if model_name == DEMO else model_name)
    methods = build_methods(steps, ModelConfig(name=model_name))
    report = count(prune(host, methods, self_check=False) if methods else host, convention=convention)
    row = {"model": model_name} | {k: v for k, v in fields.items() if isinstance(v, str | float | int)}
    row |= asdict(report) | {"total_gmacs": report.total_gmacs, "reduction": report.reduction}
    return row | {"num_kept": report.token_counts[0], "num_final": report.mlp_token_counts[-1]}


def _print_table(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from vidprune.cli.screen import console

    first = rows[0]
    method = f"{first['name']} by {first['proposal']}" if first.get("proposal") else first["name"]
    if first.get("input_treatment"):
        method += f" ({first['input_treatment']} input)"
    table = Table(
        title=f"{first['model']}, {method}: GFLOPs per view (multiply-accumulates, {first['convention']})",
        title_justify="left",
    )
    for header in ("z", "tokens", "of", "dense", "ViT", "proposal", "total", "reduction"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['keep_ratio']:g}" if "keep_ratio" in row else "-",
            str(row["num_kept"]) if row["num_kept"] == row["num_final"] else f"{row['num_kept']} to {row['num_final']}",
            str(row["num_tokens"]),
            *(f"{row[key]:.2f}" for key in ("dense_gmacs", "vit_gmacs", "proposal_gmacs", "total_gmacs")),
            f"{row['reduction']:.2f}x",
        )
    console().print(table)
