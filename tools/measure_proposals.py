"""What proposals that cost next to nothing are worth on the demo: the codec's motion, and one pass shared by crops.

    python tools/measure_proposals.py --clips runs/heldout/seed1 --num-clips 192 --out results

`--clips` is a folder of render_digits.py. Every variant sees the same decoded frames; rows are written as they come.
"""

from __future__ import annotations

import argparse
import csv
import platform
from importlib.metadata import version
from pathlib import Path
from statistics import mean

import numpy as np
import torch
from measure_demo import paired_interval

from vidprune.config import DEMO, ModelConfig, RunConfig, build_model, demo_file
from vidprune.demo import DemoClip, actor_per_token, load_clips
from vidprune.evaluation.metrics import wilson_interval
from vidprune.inference import plan_for, reader_for, run_views, video_maps
from vidprune.proposals import create_proposal
from vidprune.pruners.papr import PaPr
from vidprune.pruning import PrunedViT, prune
from vidprune.video import cut_views

KEEP_RATIOS = (0.5, 0.3)
REFERENCE = "x3d_tiny"
COLUMNS = ("clip", "proposal", "keep_ratio", "correct", "actor_coverage", "overlap")
SHOWN = ("proposal", "keep_ratio", "clips", "top1", "top1_low", "top1_high", "gap", "gap_low", "gap_high")
SHOWN += ("actor_coverage", "overlap")


def build_variants() -> dict[tuple[str, float], PrunedViT]:
    host = build_model(RunConfig(model=ModelConfig(DEMO), device="cpu"))
    weights = str(demo_file("x3d_tiny.safetensors"))
    made = {
        REFERENCE: {"proposal": "x3d_tiny", "proposal_checkpoint": weights},
        "x3d_tiny, shared crops": {"proposal": "x3d_tiny", "proposal_checkpoint": weights, "shared_crops": True},
        "codec_motion, median": {"proposal": "codec_motion"},
        "codec_motion, affine": {"proposal": create_proposal("codec_motion", compensation="affine")},
        "frame_difference": {"proposal": "frame_difference"},
        "random": {"proposal": "random"},
    }
    return {(name, z): prune(host, PaPr(z, **fields)).eval() for name, fields in made.items() for z in KEEP_RATIOS}


def measure_clip(clip: DemoClip, variants: dict[tuple[str, float], PrunedViT]) -> list[dict[str, object]]:
    models = list(variants.values())
    plan = plan_for(models[0])
    video = reader_for(models, plan)(clip.path)
    views = cut_views(video, plan)
    actor = actor_per_token(clip.mask, video.num_frames_total, video.size, plan, models[0].host)
    rows: list[dict[str, object]] = []
    reference: dict[float, torch.Tensor] = {}
    for (name, keep_ratio), model in variants.items():
        maps = video_maps([video], model, plan)
        logits, trace = run_views(model, views, None if maps is None else maps[0])
        kept = torch.zeros_like(actor).scatter(1, trace.kept_index, 1.0)  # [V, N]
        shared = (kept * reference.setdefault(keep_ratio, kept)).sum() / kept.sum()
        correct = int(logits.softmax(dim=1).mean(dim=0).argmax()) == clip.label
        figures = (int(correct), float((actor * kept).sum() / actor.sum()), float(shared))
        rows.append(dict(zip(COLUMNS, (clip.path.stem, name, keep_ratio, *figures), strict=True)))
    return rows


def summary(rows: list[dict[str, str]]) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    hits = {}
    for key in dict.fromkeys((row["proposal"], row["keep_ratio"]) for row in rows):
        chosen = [row for row in rows if (row["proposal"], row["keep_ratio"]) == key]
        hits[key] = np.array([int(row["correct"]) for row in chosen])
        low, high = wilson_interval(int(hits[key].sum()), len(chosen))
        gap = hits[key] - hits[REFERENCE, key[1]]
        percent = [100 * value for value in (hits[key].mean(), low, high, gap.mean(), *paired_interval(gap))]
        shares = [100 * mean(float(row[column]) for row in chosen) for column in ("actor_coverage", "overlap")]
        lines.append(dict(zip(SHOWN, (*key, len(chosen), *(f"{x:.1f}" for x in (*percent, *shares))), strict=True)))
    return lines


def write_report(lines: list[dict[str, object]], out: Path, command: str) -> None:
    with (out / "cheap_proposals.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, SHOWN, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "av", "numpy"))
    table = ["| " + " | ".join(SHOWN) + " |", "|" + "---|" * len(SHOWN)]
    table += ["| " + " | ".join(str(line[name]) for name in SHOWN) + " |" for line in lines]
    text = f"""# Proposals that cost next to nothing, on the demo

Command: `{command}`

Data: {lines[0]["clips"]} rendered H.264 clips of held-out digits, 5 temporal segments x 3 spatial crops. Device: CPU
({platform.machine()}), {torch.get_num_threads()} thread(s); Python {platform.python_version()}, {versions}.

All in percent. `top1` with its 95 % Wilson interval; `gap` to x3d_tiny, run per view, over the same clips, with its
95 % paired bootstrap interval; `actor_coverage`: the acting digit's pixels that lie in kept tokens; `overlap`: the kept
tokens that x3d_tiny keeps too.

"""
    (out / "cheap_proposals.md").write_text(text + "\n".join(table) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=Path, required=True)
    parser.add_argument("--num-clips", type=int, default=192, help="spread evenly over the folder")
    parser.add_argument("--out", type=Path, default=Path("results"))
    parser.add_argument("--rows", type=Path, help="where rows go as they come; a second start goes on from there")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows_path = args.rows or args.clips.parent / f"{args.clips.name}_cheap_rows.csv"
    if not rows_path.exists():
        rows_path.write_text(",".join(COLUMNS) + "\n")
    done = {row["clip"] for row in _read(rows_path)}
    clips = load_clips(args.clips)
    chosen = [clips[i] for i in np.linspace(0, len(clips) - 1, args.num_clips).astype(int)]
    variants = build_variants()
    for clip in chosen:
        if clip.path.stem not in done:
            rows = measure_clip(clip, variants)
            with rows_path.open("a", newline="") as file:
                csv.DictWriter(file, COLUMNS, lineterminator="\n").writerows(rows)
    command = f"python tools/measure_proposals.py --clips runs/heldout/{args.clips.name} --num-clips {args.num_clips}"
    write_report(summary(_read(rows_path)), args.out, command)


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


if __name__ == "__main__":
    main()
