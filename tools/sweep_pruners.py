"""All pruners at equal cost: accuracy on held-out digits and measured speed, for images and for video.

    python tools/sweep_pruners.py frames --out results
    python tools/sweep_pruners.py tubelets --clips runs/heldout --out results

Every registered method is set to each target by bisection on its GMACs per input, proposal included. Seeds are
independent test sets. Nothing is trained or tuned here.
"""

from __future__ import annotations

import argparse
import csv
import platform
import shlex
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from measure_demo import paired_interval
from pareto_plot import Point, pareto_svg
from sweep_measure import Variant, find_variants, measure_accuracy, measure_speed
from sweep_tasks import Task, frames_task, tubelets_task

from vidprune.evaluation.metrics import wilson_interval

SPEED_BATCHES = (1, 8)


def sweep(task: Task, targets: Sequence[float], seeds: Sequence[int], rounds: int) -> tuple[list[Variant], list[str]]:
    """All variants of the task, measured; and what is missing, with the reason."""
    variants, missing = find_variants(task, targets)
    for line in missing:
        print(f"left out: {line}", flush=True)
    for seed in seeds:
        measure_accuracy(task, variants, seed)
        print(f"{task.name}: seed {seed} of {len(variants)} settings done", flush=True)
    inputs = task.calibration()
    for size in SPEED_BATCHES:
        measure_speed(variants, inputs, size, rounds)
    return variants, missing


def summary(variants: Sequence[Variant]) -> list[dict[str, str]]:
    """One row per variant, in percent and points; gaps are paired over the same inputs, to random at its target."""
    dense = variants[0]
    random = {variant.target: variant for variant in variants if variant.method == "random"}
    rows = []
    for variant in variants:
        hits = variant.all_hits
        low, high = wilson_interval(int(hits.sum()), len(hits))
        row = {
            "method": variant.method,
            "target": f"{100 * variant.target:.0f}",
            "gmacs": f"{variant.gmacs:.4f}",
            "share_of_dense": f"{100 * variant.gmacs / dense.gmacs:.1f}",
            "proposal_gmacs": f"{variant.proposal_gmacs:.4f}",
            "final_tokens": f"{variant.tokens:.0f}",
            "inputs": str(len(hits)),
            "top1": f"{100 * hits.mean():.2f}",
            "top1_low": f"{100 * low:.2f}",
            "top1_high": f"{100 * high:.2f}",
            "top1_per_seed": " ".join(f"{100 * variant.hits[seed].mean():.2f}" for seed in sorted(variant.hits)),
        }
        row |= _gap("to_dense", variant, dense) | _gap("to_random", variant, random.get(variant.target))
        for size, seconds in variant.seconds.items():
            row[f"speed_batch{size}"] = f"{dense.seconds[size] / seconds:.2f}"
        rows.append(row | {"setting": variant.setting})
    return rows


def _gap(name: str, variant: Variant, reference: Variant | None) -> dict[str, str]:
    """Difference of accuracies in points with its 95 % paired bootstrap interval; empty without a reference."""
    if reference is None:
        return {name: "", f"{name}_low": "", f"{name}_high": ""}
    difference = variant.all_hits.astype(int) - reference.all_hits
    low, high = paired_interval(difference)
    values = {name: difference.mean(), f"{name}_low": low, f"{name}_high": high}
    return {key: f"{100 * value:.2f}" for key, value in values.items()}


def verdicts(rows: Sequence[dict[str, str]]) -> list[str]:
    """Per target, which methods are apart from random with 95 % confidence, best first, and which are not."""
    lines = []
    for target in sorted({row["target"] for row in rows if row["method"] != "dense"}, key=float, reverse=True):
        at = [row for row in rows if row["target"] == target and row["to_random"] and row["method"] != "random"]
        at.sort(key=lambda row: -float(row["to_random"]))
        groups = {
            "above random": [row for row in at if float(row["to_random_low"]) > 0],
            "not told apart from it": [
                row for row in at if float(row["to_random_low"]) <= 0 <= float(row["to_random_high"])
            ],
            "below it": [row for row in at if float(row["to_random_high"]) < 0],
        }
        told = []
        for name, group in groups.items():
            members = [f"{row['method']} {float(row['to_random']):+.1f}" for row in group]
            told.append(f"{name}: {', '.join(members) or 'none'}")
        lines.append(f"- {target} % of dense: {'; '.join(told)}.")
    return lines


def write_results(
    task: Task, variants: Sequence[Variant], missing: Sequence[str], out: Path, command: str, note: str = ""
) -> None:
    """pareto_NAME.csv, .md and .svg in `out`; `note` says what else a reader must know of the device."""
    out.mkdir(parents=True, exist_ok=True)
    rows = summary(variants)
    stem = out / f"pareto_{task.name}"
    with stem.with_suffix(".csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    stem.with_suffix(".md").write_text(_markdown(task, rows, missing, command, note))
    stem.with_suffix(".svg").write_text(_picture(task, variants))


def _markdown(task: Task, rows: Sequence[dict[str, str]], missing: Sequence[str], command: str, note: str) -> str:
    lines = [
        "| method | % of dense | GMACs | final tokens | top-1 | 95 % | per seed | to random | to dense | "
        + " | ".join(f"speed, batch {size}" for size in SPEED_BATCHES)
        + " | setting |",
        "|---|" + "---:|" * (8 + len(SPEED_BATCHES)) + "---|",
    ]
    for row in rows:
        gaps = [
            f"{row[g]} ({row[f'{g}_low']}, {row[f'{g}_high']})" if row[g] else "" for g in ("to_random", "to_dense")
        ]
        cells = [row["method"], row["share_of_dense"], row["gmacs"], row["final_tokens"], row["top1"]]
        cells += [f"{row['top1_low']}-{row['top1_high']}", row["top1_per_seed"], *gaps]
        cells += [row[f"speed_batch{size}"] for size in SPEED_BATCHES] + [row["setting"]]
        lines.append("| " + " | ".join(cells) + " |")
    versions = f"Python {platform.python_version()}, torch {torch.__version__}, timm {version('timm')}"
    return f"""# All pruners at equal cost: {task.name}

Command: `{command}`

Data: {task.data}; {rows[0]["inputs"]} {task.unit}s in all.

Device: CPU ({_processor()}), {torch.get_num_threads()} thread(s), float32{note and f"; {note}"}. {versions}.

`top-1` in percent with its 95 % Wilson interval; gaps in points, paired over the same inputs, with 95 % bootstrap
intervals; GMACs per {task.unit} include the proposal; `speed` is dense time over the method's, medians of forward
passes in turn, proposal included.

Each method's strength was set by bisection on its cost alone. All else is its default, but where that misses a target,
or comes near it only with almost nothing left, the method acts in other blocks or earlier, as `setting` says. STAR is
calibrated on validation digits. DiffRate's counts are not learned here but fall by the same share in each block.

Against random at the same cost, in points:

{chr(10).join(verdicts(rows))}

![accuracy against cost](pareto_{task.name}.svg)

{chr(10).join(lines)}

Not in the table:

{chr(10).join(f"- {line}" for line in missing) or "- nothing"}
"""


def _picture(task: Task, variants: Sequence[Variant]) -> str:
    points: dict[str, list[Point]] = {}
    for variant in variants:
        hits = variant.all_hits
        low, high = wilson_interval(int(hits.sum()), len(hits))
        share = 100 * variant.gmacs / variants[0].gmacs
        points.setdefault(variant.method, []).append(Point(share, 100 * hits.mean(), 100 * low, 100 * high))
    (dense,) = points.pop("dense")
    return pareto_svg(f"Held-out top-1 against cost, {task.name}", dense, points)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="+", choices=["frames", "tubelets"])
    parser.add_argument("--clips", type=Path, help="where the rendered sets are or go, one folder per seed (tubelets)")
    parser.add_argument("--images-per-seed", type=int, default=600)
    parser.add_argument("--clips-per-seed", type=int, default=240)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--targets", type=float, nargs="+", default=[0.7, 0.5, 0.35], help="shares of the dense GMACs")
    parser.add_argument("--rounds", type=int, default=15, help="of the speed measurement")
    parser.add_argument("--note", default="", help="what a reader must know of the device, such as other load on it")
    parser.add_argument("--out", type=Path, default=Path("results"))
    args = parser.parse_args()
    if "tubelets" in args.tasks and args.clips is None:
        parser.error("tubelets needs --clips, a folder such as runs/heldout; sets that are not there are rendered")
    torch.set_num_threads(1)
    shown = [Path("runs", args.clips.name) if args.clips and word == str(args.clips) else word for word in sys.argv[1:]]
    command = f"python tools/sweep_pruners.py {shlex.join(map(str, shown))}"
    for name in args.tasks:
        task = frames_task(args.images_per_seed) if name == "frames" else tubelets_task(args.clips_per_seed, args.clips)
        variants, missing = sweep(task, args.targets, args.seeds, args.rounds)
        write_results(task, variants, missing, args.out, command, args.note)


if __name__ == "__main__":
    main()
