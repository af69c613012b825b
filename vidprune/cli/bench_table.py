"""What `vidprune bench` puts on the screen, and into its CSV."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.errors import ConfigError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from rich.table import Table

HEADERS = {
    "num_frames": "frames",
    "num_wanted": "wanted",
    "num_decoded": "decoded",
    "cpu_ms": "CPU ms",
    "ms_per_view": "ms/view",
    "views_per_s": "views/s",
    "speed_up": "faster",
    "gmacs": "GFLOPs",
    "gmacs_reduction": "fewer",
    "proposal_ms": "prop. ms",
    "share_of_bound": "of bound",
    "peak_mib": "MiB",
    "mean_gap": "gap",
    "psnr_db": "PSNR",
    "num_videos": "videos",
    "decode_videos_per_s": "decode/s",
    "model_videos_per_s": "model/s",
    "videos_per_s": "all/s",
    "share_of_slowest": "of slowest",
    "shared_cores_videos_per_s": "shared/s",
    "decode_ms": "decode ms",
    "transfer_ms": "transfer",
    "vit_ms": "ViT ms",
    "wait_share": "waiting",
}
"""Columns on the screen; --json and --csv have the full names."""
TIMES = ("speed_up", "gmacs_reduction", "ratio")
SHARES = ("share_of_bound", "share_of_slowest", "wait_share")
LEGENDS = {
    "decode": "CPU ms: of all cores together, per video, median of the rounds. ratio: to decoding every frame and no "
    "more. wanted: frames that the 5x3 views need. MiB: memory that reading adds. gap (levels of 255) and PSNR (dB): "
    "of the planes' RGB from the default way's.",
    "model": "ms/view and views/s: proposal included, median of the rounds. faster, fewer: than dense, in time and in "
    "GFLOPs (multiply-accumulates per view, proposal included). prop. ms: the proposal's part of ms/view. of bound: "
    "100 % means that proposal and choice cost nothing beside the pruned ViT. MiB: memory that a pass adds.",
    "pipeline": "videos per second: decode/s and model/s alone, all/s together, shared/s at best where both share "
    "these cores. of slowest: all/s by the slower stage. Then ms per video: reading in its worker, upload and crops, "
    "proposal, ViT. waiting: part of the time in which the model waits for frames.",
}
"""What the columns mean, below each table."""


def show(
    kind: str, rows: Sequence[DataclassInstance], title: str, *, csv: Path | None, as_json: bool, device: str
) -> None:
    """Write the rows of a measurement of one `kind` (see `LEGENDS`) as CSV if so told, and as a table or JSON lines."""
    from vidprune.profiling.measured_csv import versions, write_measured
    from vidprune.profiling.timing import machine

    if not rows:
        raise ConfigError("nothing was measured")
    if csv is not None:
        write_measured(csv, rows, command=["vidprune", *sys.argv[1:]], machine=machine(device))
    if as_json:
        for row in rows:
            print(json.dumps(asdict(row) | {"machine": machine(device), "versions": versions()}))
        return
    _print_table(rows, f"{title} ({machine(device)})", f"{LEGENDS[kind]}\n{versions()}")


def _print_table(rows: Sequence[DataclassInstance], title: str, legend: str) -> None:
    """A line per row; a column per row where a terminal is too narrow for that."""
    from rich.measure import Measurement

    from vidprune.cli.screen import console

    cells = {name: [_cell(name, asdict(row)[name]) for row in rows] for name in asdict(rows[0])}
    screen = console()
    if not screen.is_terminal:  # a file or a pipe has no width to keep to
        screen.width = max(screen.width, 160)
    headers = [HEADERS.get(name, name) for name in cells]
    folded = [header.replace(" ", "\n").replace("/", "/\n") for header in headers]
    texts = {number for number, value in enumerate(asdict(rows[0]).values()) if isinstance(value, str)}
    table = _table(folded, zip(*cells.values(), strict=True), title, texts)
    needed = Measurement.get(screen, screen.options.update(width=10_000), table).maximum
    if needed > screen.width:
        (first, *names), *others = ([header, *column] for header, column in zip(headers, cells.values(), strict=True))
        table = _table([first, *names], others, title, {0})
    screen.print(table)
    screen.print(legend, style="dim")


def _table(headers: Sequence[str], rows: Iterable[Sequence[str]], title: str, texts: Collection[int]) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    for number, header in enumerate(headers):
        table.add_column(header, justify="left" if number in texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if not isinstance(value, float):
        return str(value)
    if name in SHARES:
        return f"{value:.0%}"
    if name in TIMES:
        return f"{value:.2f}x"
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
