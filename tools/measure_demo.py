"""Measures the demo's models on rendered held-out clips: real H.264 files, 3x5 views, several seeds.

    python tools/measure_demo.py --clips runs/heldout --clips-per-seed 672 --seeds 1 2 3 --out results

Every seed renders its own clips (other scenes of the same held-out digits; none of them the shipped ones, which are
seed 0's) and seeds the random control. Rows are written as they come, and a second start goes on where the first one
stopped.
"""

from __future__ import annotations

import argparse
import csv
import platform
from pathlib import Path

import cv2
import numpy as np
import torch
from render_digits import CRF, write_set

from vidprune.demo import build_variants, evaluate_clips, load_clips
from vidprune.evaluation.metrics import wilson_interval
from vidprune.inference import plan_for
from vidprune.profiling.flops import flops

METHODS = ("papr", "random", "frame_difference")
KEEP_RATIOS = (0.5, 0.3)
COLUMNS = ("seed", "clip", "label", "method", "keep_ratio", "correct", "actor_coverage", "seconds", "proposal_seconds")
BOOTSTRAPS = 10_000


def measure_seed(folder: Path, seed: int, num_clips: int, part: int, num_parts: int) -> list[dict[str, str]]:
    """Renders the seed's clips if they are not there, runs every variant on one part of them, and returns all rows."""
    rows_path = folder.parent / f"{folder.name}_rows.csv"
    if not (folder / "masks.npz").exists():  # written last
        write_set(folder, "heldout", num_clips, seed, CRF)
    done = {row["clip"] for row in read_rows(rows_path)}
    clips = [clip for clip in load_clips(folder)[part::num_parts] if clip.path.stem not in done]
    variants = build_variants(METHODS, KEEP_RATIOS, seed=seed)
    for clip, results in zip(clips, evaluate_clips(clips, variants, plan_for(variants[0].model)), strict=True):
        with rows_path.open("a", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            for r in results:
                figures = (
                    int(r.correct),
                    round(r.actor_coverage, 5),
                    round(r.seconds, 5),
                    round(r.proposal_seconds, 5),
                )
                writer.writerow((seed, clip.path.stem, clip.label, r.method, r.keep_ratio, *figures))
    return read_rows(rows_path)


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(",".join(COLUMNS) + "\n")
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def summary(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    """One row per variant: top-1 with its Wilson interval, per seed, and its gap to dense over the same clips."""
    table: dict[tuple[str, str], dict[tuple[str, str], dict[str, str]]] = {}
    for row in rows:
        table.setdefault((row["method"], row["keep_ratio"]), {})[row["seed"], row["clip"]] = row
    dense = table["dense", "1.0"]
    costs = {(v.method, str(v.keep_ratio)): flops(v.model) for v in build_variants(METHODS, KEEP_RATIOS)}
    order = sorted(dense)
    dense_hits = np.array([int(dense[key]["correct"]) for key in order])
    lines = []
    for (method, keep_ratio), results in table.items():
        hits = np.array([int(results[key]["correct"]) for key in order])
        low, high = wilson_interval(int(hits.sum()), len(hits))
        gap_low, gap_high = paired_interval(hits - dense_hits)
        seeds = np.array([key[0] for key in order])
        cost = costs[method, keep_ratio]
        lines.append(
            {
                "method": method,
                "keep_ratio": keep_ratio,
                "tokens": cost.token_counts[0],
                "clips": len(hits),
                "top1": f"{100 * hits.mean():.2f}",
                "top1_low": f"{100 * low:.2f}",
                "top1_high": f"{100 * high:.2f}",
                "top1_per_seed": " ".join(f"{100 * hits[seeds == s].mean():.2f}" for s in sorted(set(seeds))),
                "gap_to_dense": f"{100 * (hits - dense_hits).mean():.2f}",
                "gap_low": f"{100 * gap_low:.2f}",
                "gap_high": f"{100 * gap_high:.2f}",
                "actor_coverage": f"{100 * np.mean([float(results[key]['actor_coverage']) for key in order]):.1f}",
                "gmacs_per_view": f"{cost.total_gmacs:.4f}",
                "proposal_gmacs": f"{cost.proposal_gmacs:.4f}",
            }
        )
    return lines


def paired_interval(differences: np.ndarray) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over clips, seeded."""
    # Differences are -1, 0 or 1, so resampling the clips is a multinomial draw of how many of each there are.
    shares = np.array([(differences == value).mean() for value in (-1, 0, 1)])
    draws = np.random.default_rng(0).multinomial(len(differences), shares, size=BOOTSTRAPS)
    low, high = np.percentile((draws[:, 2] - draws[:, 0]) / len(differences), (2.5, 97.5))
    return float(low), float(high)


def write_report(rows: list[dict[str, str]], out: Path, command: str) -> None:
    lines = summary(rows)
    with (out / "demo.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, lines[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    shown = ("method", "keep_ratio", "tokens", "top1", "top1_low", "top1_high", "top1_per_seed", "gap_to_dense")
    shown += ("gap_low", "gap_high", "actor_coverage", "gmacs_per_view", "proposal_gmacs")
    table = ["| " + " | ".join(shown) + " |", "|" + "---|" * len(shown)]
    table += ["| " + " | ".join(str(line[name]) for name in shown) + " |" for line in lines]
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__}
    versions |= {"OpenCV": cv2.__version__}
    device = f"CPU ({platform.processor() or platform.machine()}), {torch.get_num_threads()} thread(s) a process"
    seeds = ", ".join(sorted({row["seed"] for row in rows}))
    text = f"""# The demo on held-out renders

Command: `{command}`

Data: {lines[0]["clips"]} H.264 clips of held-out digits, seeds {seeds}, balanced over classes; 5 temporal segments x 3
spatial crops. Device: {device}; {", ".join(f"{name} {version}" for name, version in versions.items())}.

`top1` in percent with its 95 % Wilson interval; `gap_to_dense` in points over the same clips with its 95 % paired
bootstrap interval; `actor_coverage` is the percentage of the acting digit's pixels in kept tokens; GMACs per view
include the proposal. How the models were trained, and what these figures do not say: demo_training.md.

"""
    (out / "demo.md").write_text(text + "\n".join(table) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--clips", type=Path, required=True, help="where the rendered sets are or go, one folder per seed"
    )
    parser.add_argument("--clips-per-seed", type=int, default=672)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--part", type=int, nargs=2, default=(0, 1), help="K N: every N-th clip from K on, to share work"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = []
    for seed in args.seeds:
        rows += measure_seed(args.clips / f"seed{seed}", seed, args.clips_per_seed, *args.part)
    if len({(row["seed"], row["clip"]) for row in rows}) < args.clips_per_seed * len(args.seeds):
        return  # another process is at the other parts; whoever comes last writes the report
    args.out.mkdir(parents=True, exist_ok=True)
    seeds = " ".join(map(str, args.seeds))
    command = f"python tools/measure_demo.py --clips runs/{args.clips.name} --clips-per-seed {args.clips_per_seed}"
    command += f" --seeds {seeds} --threads {args.threads}"
    write_report(rows, args.out, command)


if __name__ == "__main__":
    main()
