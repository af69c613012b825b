"""Writes what was measured of each method into its card, from the files in results/: the two cannot drift apart.

    python tools/card_figures.py            # rewrite the part between the two markers in every card of docs/methods/

Accuracy: results/pareto_frames.csv and results/pareto_tubelets.csv (tools/sweep_pruners.py). Speed: results/speed_*.csv
(`vidprune bench model`). A card whose method is in none of them is left as it is.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- measured: begin, written by tools/card_figures.py -->", "<!-- measured: end -->"
TASKS = {"frames": "images", "tubelets": "video"}
TARGETS = ("70", "50", "35")
CARDS = {  # card: the names under which its methods stand in the results, `+` for a chain
    "papr": ("papr", "papr, mass", "papr+tome"),
    "controls": ("random", "uniform", "centre", "frame_difference", "norm"),
    "star": ("star", "adaptive_star"),
} | {name: (name,) for name in ("tome", "tofu", "evit", "etps", "gtp", "ats", "rlt", "sta", "diffrate")}
Rows = Sequence[dict[str, str]]


def read(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV whose comment lines start with #."""
    return list(csv.DictReader(line for line in path.read_text().splitlines() if not line.startswith("#")))


def accuracy_table(names: Sequence[str], tasks: dict[str, Rows]) -> list[str]:
    """Top-1 at equal cost, random's beside it."""
    lines = [
        "Top-1 at 70, 50 and 35 % of the dense GFLOPs on the models trained here (`tools/sweep_pruners.py`, "
        "[how to read it](../pruners_compared.md)):",
        "",
        "| | 70 % | 50 % | 35 % | random at the same | dense |",
        "|---|---|---|---|---|---|",
    ]
    found = False
    for task, rows in tasks.items():
        top1 = {(row["method"], row["target"]): row["top1"] for row in rows}
        for name in names:
            cells = [_percent(top1.get((name, target))) for target in TARGETS]
            if set(cells) == {"-"}:
                continue
            found = True
            random = " / ".join(_percent(top1.get(("random", target))) for target in TARGETS)
            dense = _percent(top1.get(("dense", "100")))
            lines.append(f"| {name}, {TASKS[task]} | {' | '.join(cells)} | {random} | {dense} |")
    return lines if found else []


def speed_table(names: Sequence[str], hosts: dict[str, Rows]) -> list[str]:
    """Measured speed beside the counted operations."""
    lines = [
        "",
        "Speed against dense on hosts of real size with random weights, the decision included (`vidprune bench model`; "
        "device, versions and commands are in `results/speed_*.csv`):",
        "",
        "| host, setting | fewer GFLOPs | faster, batch 1 | faster, batch 8 |",
        "|---|---|---|---|",
    ]
    found, notes = False, []
    for host, rows in hosts.items():
        settings = [row["name"] for row in rows if method_of(row["name"]) in names]
        for setting in dict.fromkeys(settings):
            by_batch = {row["batch"]: row for row in rows if row["name"] == setting}
            fewer = next(iter(by_batch.values()))["gmacs_reduction"]
            cells = [_times(by_batch[batch]["speed_up"] if batch in by_batch else "") for batch in ("1", "8")]
            lines.append(f"| {host}, `{_short(setting)}` | {_times(fewer)} | {' | '.join(cells)} |")
            found = True
            slow = [batch for batch, row in by_batch.items() if float(row["speed_up"]) < 1.0]
            if slow and fewer and float(fewer) > 1.0:
                notes.append(
                    f"On {host} it is slower than dense at batch {' and '.join(slow)}, for all its fewer GFLOPs."
                )
    return [*lines, *(["", *notes] if notes else [])] if found else []


def method_of(setting: str) -> str:
    """'papr keep_ratio=.5 + tome r=8' -> 'papr+tome'."""
    return "+".join(part.split()[0] for part in setting.split(" + "))


def card(text: str, figures: Iterable[str]) -> str:
    """The card with `figures` between its markers.

    Raises:
        ValueError: the card lacks the markers.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError("a card needs the two markers of tools/card_figures.py around its measured figures")
    return "\n".join((before + BEGIN, "", *figures, "", END)) + after


def cards() -> dict[Path, str]:
    """Every card as it should be."""
    tasks = {task: read(ROOT / "results" / f"pareto_{task}.csv") for task in TASKS}
    speeds = sorted((ROOT / "results").glob("speed_*.csv"))
    hosts = {path.stem.removeprefix("speed_"): read(path) for path in speeds}
    texts = {}
    for name, methods in CARDS.items():
        path = ROOT / "docs" / "methods" / f"{name}.md"
        figures = accuracy_table(methods, tasks) + speed_table(methods, hosts)
        if figures:
            texts[path] = card(path.read_text(), figures)
    return texts


def _percent(value: str | None) -> str:
    return f"{float(value):.1f}" if value else "-"


def _short(setting: str, limit: int = 70) -> str:
    return setting if len(setting) <= limit else setting[:limit].rsplit(",", 1)[0] + ", ..."


def _times(value: str) -> str:
    return f"{float(value):.2f}x" if value else "-"


def main() -> None:
    for path, text in cards().items():
        path.write_text(text)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
