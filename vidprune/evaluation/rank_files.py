"""VideoMAE's own results: one text file per process, `0.txt`, `1.txt`, ..., merged by VideoMAE's rules.

A file's first line holds the accuracies of its last batch and is skipped. Every other line is one view: `id [logits]
label segment crop`. A view that several processes report (their sampler repeats some to share out evenly) counts once;
a video's prediction is the mean over its views of their softmax ("probs"; VideoMAE V2's other method is the mean of the
logits). Two departures, both from the silent side: a first line that is a view is kept, and a video whose logits are
not finite is a failure. Videos that VideoMAE could not read are not in its files, so they are in no denominator.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vidprune.errors import ConfigError
from vidprune.evaluation.identity import PROTOCOL_VERSIONS, digest, file_sha256
from vidprune.evaluation.metrics import top_k
from vidprune.evaluation.predictions import PLAIN_COLUMNS, TOP, Predictions

_VIEW = re.compile(r"(?P<video>.+?) \[(?P<logits>[^\]]+)\] (?P<label>-?\d+) (?P<segment>\d+) (?P<crop>\d+)")
UNKNOWN = "not recorded"


@dataclass
class _Video:
    """Sums over the views seen so far, float64 [classes]."""

    label: int
    probs: np.ndarray
    logits: np.ndarray
    views: set[tuple[int, int]] = field(default_factory=set)


def find_rank_files(folder: str | Path) -> list[Path]:
    """The files of a folder that are named by a number, in its order."""
    files = [file for file in Path(folder).glob("*.txt") if file.stem.isdecimal()]
    return sorted(files, key=lambda file: int(file.stem))


def merge_rank_files(folder: str | Path) -> tuple[dict[str, Any], Predictions]:
    """The header that a store of these results would have, and the predictions.

    Raises:
        ConfigError: no such file, a line that is no view, or files that contradict each other.
    """
    files = find_rank_files(folder)
    videos: dict[str, _Video] = {}
    for file in files:
        _read(file, videos)
    if not videos:
        raise ConfigError(f"{folder} holds no results of VideoMAE: no file such as 0.txt with lines 'id [logits] ...'")
    return _header(files, videos), _predictions(videos)


def _read(file: Path, videos: dict[str, _Video]) -> None:
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                found = _VIEW.fullmatch(line.strip())
                if found is not None:
                    _add(videos, found, f"{file}, line {number}")
                elif number > 1 and line.strip():
                    raise ConfigError(f"{file}, line {number} is no 'id [logits] label segment crop': {line[:60]!r}")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {file}: {error}") from None


def _add(videos: dict[str, _Video], found: re.Match[str], where: str) -> None:
    try:
        logits = np.array(found["logits"].split(","), dtype=np.float64)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from None
    label, view = int(found["label"]), (int(found["segment"]), int(found["crop"]))
    zeros = np.zeros_like(logits)
    video = videos.setdefault(found["video"], _Video(label, zeros, zeros))
    if video.label != label or video.logits.shape != logits.shape:
        raise ConfigError(
            f"{where}: video {found['video']!r} has label {label} and {len(logits)} logits here, label {video.label} "
            f"and {len(video.logits)} logits elsewhere; are there two videos of that name?"
        )
    if view in video.views:
        return
    video.views.add(view)
    exp = np.exp(logits - logits.max())
    video.probs = video.probs + exp / exp.sum()
    video.logits = video.logits + logits


def _predictions(videos: dict[str, _Video]) -> Predictions:
    count = len(videos)
    finite = np.array([bool(np.isfinite(video.logits).all()) for video in videos.values()])
    mean = {
        "probs": np.stack([video.probs / len(video.views) for video in videos.values()]),
        "logits": np.stack([video.logits / len(video.views) for video in videos.values()]),
    }
    ranked = {name: np.where(finite[:, None], top_k(np.nan_to_num(values), TOP), -1) for name, values in mean.items()}
    columns: dict[str, list[Any]] = {name: [None] * count for name in PLAIN_COLUMNS}
    columns |= {"position": list(range(count)), "video_id": list(videos), "path": list(videos)}
    columns["label"] = [video.label for video in videos.values()]
    columns["error"] = [None if good else "its logits are not finite" for good in finite]
    return Predictions(columns, ranked, np.where(finite, mean["probs"].max(axis=1), np.nan))


def _header(files: list[Path], videos: dict[str, _Video]) -> dict[str, Any]:
    from vidprune.labels import default_class_names

    views = set().union(*(video.views for video in videos.values()))
    num_classes = max(len(video.logits) for video in videos.values())
    segments, crops = (max(view[axis] for view in views) + 1 for axis in (0, 1))
    short = sum(len(video.views) < segments * crops for video in videos.values())
    warnings = [f"{short} videos have fewer than {segments * crops} views"] if short else []
    hashes = {file.name: file_sha256(file) for file in files}
    plan = {"protocol": "videomae", "num_segments": segments, "num_crops": crops}
    return {
        "digest": digest(hashes),
        "identity": {
            "model": {"name": "VideoMAE's rank files"},
            "method": {"name": UNKNOWN},
            "views": plan | dict.fromkeys(("num_frames", "frame_stride", "crop_size"), UNKNOWN),
            "protocol_version": PROTOCOL_VERSIONS["videomae"],
            "dtype": UNKNOWN,
        },
        "num_classes": num_classes,
        "class_names": list(default_class_names(num_classes)),
        "num_tokens": None,
        "num_kept": None,
        "weights": UNKNOWN,
        "num_listed": len(videos),
        "num_labelled": len(videos),
        "manifest": {"source": str(files[0].parent), "format": "rank files", "warnings": warnings},
        "environment": {"vidprune": UNKNOWN, "device": UNKNOWN, "git": None, "packages": {}},
    }
