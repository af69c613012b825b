"""`vidprune flops`: what a model costs per view, dense and pruned, counted from shapes."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from vidprune.cli import flag_types as flag
from vidprune.cli import options as opt
from vidprune.cli.outputs import prepare_file
from vidprune.errors import ConfigError

DEPENDS = "* depends on the input"
_COSTS = ["vit_gmacs", "total_gmacs", "reduction", "reduction_gmacs", "skipped_embedding_gmacs"]
_COSTS += ["token_counts", "mlp_token_counts", "num_kept", "num_final"]


def flops(
    model: flag.Model = None,
    method: flag.Method = None,
    keep_ratio: Annotated[
        list[float] | None, typer.Option(help="Share of tokens that stay, in (0, 1]; repeat for more rows.")
    ] = None,
    proposal: flag.Proposal = None,
    input_treatment: flag.InputTreatment = None,
    method_option: flag.MethodOptions = None,
    counts: Annotated[
        str | None,
        typer.Option(help="In place of a method: tokens entering each block, prefix included, as in 197,197,139,..."),
    ] = None,
    mlp_counts: Annotated[
        str | None, typer.Option(help="With --counts: tokens entering each MLP.  [default: as many]")
    ] = None,
    convention: Annotated[str, typer.Option(help="matmul, or fvcore (adds its LayerNorm count).")] = "matmul",
    table: Annotated[
        str | None, typer.Option(help="A YAML table of published costs; each is printed beside what is counted here.")
    ] = None,
    csv_file: Annotated[str | None, typer.Option("--csv", help="Write the rows to this file as well.")] = None,
    config: flag.Config = None,
    settings: flag.Settings = None,
    as_json: flag.Json = False,
) -> None:
    """GFLOPs per view (multiply-accumulates, as the papers count), the proposal apart. Needs no weights.

    Image models of timm go by timm/NAME: `--model timm/convnext_base --proposal mobileone_s0`.
    """
    if table is not None:
        if any(value is not None for value in (model, method, keep_ratio, counts, config)):
            raise ConfigError("--table names its own models and methods, so it goes with none of those flags")
        rows = _table_rows(table)
    elif counts is not None:
        if any(value is not None for value in (method, keep_ratio, proposal, method_option)):
            raise ConfigError("--counts stand for a method, so they go with no --method and none of its flags")
        rows = [_counts_row(model, counts, mlp_counts, convention)]
    else:
        rows = []
        for ratio in keep_ratio or [None]:  # type: ignore[list-item]  # None: the config's, or the default
            fields = opt.method_fields(
                method, method_option, keep_ratio=ratio, proposal=proposal, input_treatment=input_treatment
            )
            run = opt.resolve(config, model={"name": model}, method=fields, views={}, settings=settings)
            rows.append(_row(run.model.name, run.method, convention))
    if csv_file is not None:
        prepare_file(Path(csv_file))
        _write_csv(Path(csv_file), rows)
    if as_json:
        for row in rows:
            print(json.dumps(row))
    elif table is not None:
        _print_published(rows)
    else:
        _print_table(rows)


def _row(model_name: str, method: object, convention: str) -> dict[str, Any]:
    from vidprune.config import without_weights
    from vidprune.flops_table import count_model

    steps = [_with_defaults(step, model_name) for step in without_weights(method)]
    fields = {k: v for step in reversed(steps) for k, v in step.items()}  # of a chain, the first step's come first
    fields["name"] = "+".join(step["name"] for step in steps)
    row = {"model": model_name} | {k: v for k, v in fields.items() if isinstance(v, str | float | int)}
    return row | _costs(count_model(model_name, steps, convention))


def _with_defaults(step: dict[str, Any], model_name: str) -> dict[str, Any]:
    """The step with the proposal that it does not name, so that a row says what was counted."""
    from vidprune.config import ModelConfig, build_method
    from vidprune.pruners.papr import PaPr

    built = build_method(step, ModelConfig(model_name))
    if not isinstance(built, PaPr) or not isinstance(built.proposal, str):
        return step
    return {"proposal": built.proposal} | step


def _counts_row(model: str | None, counts: str, mlp_counts: str | None, convention: str) -> dict[str, Any]:
    from vidprune.config import ModelConfig
    from vidprune.flops_table import meta_host
    from vidprune.profiling.flops import counts_plan
    from vidprune.profiling.flops import flops as count

    plan = counts_plan(_numbers(counts), None if mlp_counts is None else _numbers(mlp_counts))
    name = model or ModelConfig().name
    return {"model": name, "name": "counts"} | _costs(count(meta_host(name), convention=convention, plans=[plan]))


def _numbers(text: str) -> list[int]:
    try:
        return [round(float(part)) for part in text.split(",")]
    except ValueError:
        raise ConfigError(f"counts are numbers between commas, such as 197,197,139, got {text!r}") from None


def _costs(report: Any) -> dict[str, Any]:
    """The report as plain values; what is known after a forward pass alone is None."""
    costs = asdict(report) | {"total_gmacs": report.total_gmacs, "reduction": report.reduction}
    entering = report.token_counts if report.pointwise_share is None else report.mlp_token_counts
    costs |= {"num_kept": entering[0], "num_final": report.mlp_token_counts[-1]}
    return costs | dict.fromkeys(_COSTS) if report.depends_on_input else costs


def _table_rows(path: str) -> list[dict[str, Any]]:
    from vidprune.flops_table import count_rows, read_table

    convention, rows = read_table(path)
    return [counted.as_dict() for counted in count_rows(rows, convention)]


def _write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from None


def _print_published(rows: list[dict[str, Any]]) -> None:
    from rich.table import Table

    from vidprune.cli.screen import console

    agree = sum(row["reproduced"] == "yes" for row in rows)
    title = f"GFLOPs per view (multiply-accumulates): {agree} of {len(rows)} published figures reproduced"
    screen = Table(title=title, title_justify="left", caption_justify="left")
    for header, justify in (("", "left"), ("published", "right"), ("counted", "right"), ("off by", "right")):
        screen.add_column(header, justify=justify)  # type: ignore[arg-type]
    screen.add_column("note")
    for row in rows:
        off = f"{row['difference_percent']:+.1f} %"
        note = row["note"] or ("" if row["reproduced"] == "yes" else "differs")
        screen.add_row(row["name"], str(row["published_gflops"]), f"{row['gflops']:.2f}", off, note)
    console().print(screen)


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
    places, host = ("tokens", "ViT") if first["pointwise_share"] is None else ("pixels", "host")
    for header in ("z", places, "of", "dense", host, "proposal", "total", "reduction"):
        table.add_column(header, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(f"{row['keep_ratio']:g}" if "keep_ratio" in row else "-", *_cells(row))
    console().print(table)
    if any(row["depends_on_input"] for row in rows):
        console().print(f"{DEPENDS}: measure the counts on your data (trace.token_counts), then give them as --counts")


def _cells(row: dict[str, Any]) -> list[str]:
    """The columns after the keep ratio."""
    if row["depends_on_input"]:
        costs = ["*", f"{row['proposal_gmacs']:.2f}", "*", "*"]
        return ["*", str(row["num_tokens"]), f"{row['dense_gmacs']:.2f}", *costs]
    kept = str(row["num_kept"]) if row["num_kept"] == row["num_final"] else f"{row['num_kept']} to {row['num_final']}"
    costs = [f"{row[key]:.2f}" for key in ("dense_gmacs", "vit_gmacs", "proposal_gmacs", "total_gmacs")]
    return [kept, str(row["num_tokens"]), *costs, f"{row['reduction']:.2f}x"]
