"""VideoMAE's result files: merged figures against its rules, written here anew as plain loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidprune.errors import ConfigError
from vidprune.evaluation.files import write_report
from vidprune.evaluation.rank_files import find_rank_files, merge_rank_files
from vidprune.evaluation.store import StoreError

NUM_VIDEOS, SEGMENTS, CROPS, NUM_CLASSES = 37, 5, 3, 11


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three processes; the last views are repeated by a sampler that shares out evenly, with other last bits."""
    rng = np.random.default_rng(3)
    lines = []
    for segment in range(SEGMENTS):
        for crop in range(CROPS):
            for video in range(NUM_VIDEOS):
                logits = rng.normal(size=NUM_CLASSES) * 2
                logits[video % NUM_CLASSES] += 1.2
                lines.append(f"video_{video} {logits.tolist()} {video % NUM_CLASSES} {segment} {crop}")
    ranks = [lines[rank::3] for rank in range(3)]
    for line in lines[:2]:  # repeated views that would change the result
        head, _, numbers = line.partition("[")
        ranks[2].append(f"{head}[99.0,{numbers.partition(',')[2]}")
    for rank, own in enumerate(ranks):
        (tmp_path / f"{rank}.txt").write_text("\n".join(["71.25, 93.75", *own]) + "\n")
    (tmp_path / "log.txt").write_text("not a result file")
    return tmp_path


def by_the_rules(folder: Path, method: str) -> tuple[int, int]:
    """(top-1, top-5) hits: read rank by rank, skip the first line, first view of each segment and crop counts."""
    feats: dict[str, list[np.ndarray]] = {}
    seen: dict[str, list[str]] = {}
    labels: dict[str, int] = {}
    for rank in range(3):
        for line in (folder / f"{rank}.txt").read_text().splitlines()[1:]:
            before, _, after = line.partition("[")
            numbers, _, tail = after.partition("]")
            label, segment, crop = tail.split()
            video = before.strip()
            if segment + crop in seen.setdefault(video, []):
                continue
            seen[video].append(segment + crop)
            values = np.array([float(number) for number in numbers.split(",")])
            feats.setdefault(video, []).append(np.exp(values) / np.exp(values).sum() if method == "probs" else values)
            labels[video] = int(label)
    top1 = top5 = 0
    for video, views in feats.items():
        assert len(views) == SEGMENTS * CROPS
        order = np.argsort(-np.mean(views, axis=0))
        top1 += order[0] == labels[video]
        top5 += labels[video] in order[:5]
    return top1, top5


def test_merged_figures_follow_videomaes_rules(folder: Path) -> None:
    report = write_report(folder)
    assert report.denominator == f"{NUM_VIDEOS} videos listed, {NUM_VIDEOS} decoded, 0 failed"
    assert [accuracy.average for accuracy in report.accuracies] == ["probs", "logits"]
    for accuracy in report.accuracies:
        assert accuracy.top1 is not None
        assert accuracy.top5 is not None
        assert (accuracy.top1.num_correct, accuracy.top5.num_correct) == by_the_rules(folder, accuracy.average)
        assert 0.3 < accuracy.top1.value < 1
    assert report.views["num_segments"] == SEGMENTS
    assert len((folder / "predictions.csv").read_text().splitlines()) == NUM_VIDEOS + 1
    assert "Tokens kept: not recorded" in (folder / "report.md").read_text()


def test_every_figure_of_two_small_files(tmp_path: Path) -> None:
    lines = [
        ["50, 100", "big [1000.0, 998.0, 0.0] 0 0 0", "", "broken [1.0, nan, 0.0] 2 1 0", "big [0.0, 0.0, 0.0] 0 1 0"],
        ["50, 100", "broken [0.0, 5.0, 1.0] 2 0 0"],
    ]
    for rank, own in enumerate(lines):
        (tmp_path / f"{rank}.txt").write_text("\n".join(own) + "\n")
    header, predictions = merge_rank_files(tmp_path)
    assert predictions.columns["video_id"] == ["big", "broken"]
    assert predictions.failed.tolist() == [False, True]
    assert {name: ranked.tolist() for name, ranked in predictions.ranked.items()} == {
        "probs": [[0, 1, 2], [-1, -1, -1]],
        "logits": [[0, 1, 2], [-1, -1, -1]],
    }
    two = 1 / (1 + np.exp(-2.0))  # of logits 1000, 998 and a third that is nothing beside them
    np.testing.assert_allclose(predictions.prob, [(two + 1 / 3) / 2, np.nan])
    assert {name: header["identity"]["views"][name] for name in ("num_segments", "num_crops")} == {
        "num_segments": 2,
        "num_crops": 1,
    }
    assert (header["num_classes"], header["num_listed"], header["manifest"]["warnings"]) == (3, 2, [])


def test_files_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """The first of two reports of a view is the one that counts."""
    for rank in range(11):
        (tmp_path / f"{rank}.txt").write_text("")
    assert [file.name for file in find_rank_files(tmp_path)] == [f"{rank}.txt" for rank in range(11)]


def test_missing_views_are_said(folder: Path) -> None:
    lines = (folder / "1.txt").read_text().splitlines()
    (folder / "1.txt").write_text("\n".join(lines[:-2]))
    report = write_report(folder)
    assert report.manifest["warnings"] == ["2 videos have fewer than 15 views"]
    assert "2 videos have fewer than 15 views" in (folder / "report.md").read_text()


def test_logits_that_are_not_finite_are_failures(folder: Path) -> None:
    with (folder / "0.txt").open("a") as file:
        file.write(f"video_x [{', '.join(['nan'] * NUM_CLASSES)}] 0 0 0\n")
    report = write_report(folder)
    assert (report.num_listed, report.num_failed) == (NUM_VIDEOS + 1, 1)
    assert report.failures[0].reason == "its logits are not finite"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("video_1 [1.0, 2.0", "line 187 is no 'id"),
        (f"video_1 [{', '.join(['x'] * NUM_CLASSES)}] 1 0 0", "could not convert"),
        (f"video_1 [{', '.join(['1'] * NUM_CLASSES)}] 2 0 0", "has label 2 and 11 logits here, label 1 and 11"),
        ("video_1 [1, 2] 1 0 0", "2 logits here"),
    ],
)
def test_damaged_files_are_one_clear_line(folder: Path, line: str, message: str) -> None:
    with (folder / "1.txt").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ConfigError, match=message) as caught:
        write_report(folder)
    assert "1.txt" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_a_folder_with_neither_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is no run"):
        write_report(tmp_path)
    (tmp_path / "0.txt").write_text("71.25, 93.75\n")
    with pytest.raises(ConfigError, match="holds no results"):
        write_report(tmp_path)
