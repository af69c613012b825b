"""The tool that measures an evaluation: its list of videos, and figures that fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.tool_modules import tool
from vidprune.evaluation.manifests import find_missing, read_manifest

list_videos, measure = tool("measure_runner").list_videos, tool("measure_runner").measure


def test_a_list_longer_than_the_demo_has_no_video_twice(tmp_path: Path) -> None:
    manifest = read_manifest(list_videos(tmp_path, 100))
    assert (len(manifest.entries), manifest.num_repeated, find_missing(manifest)) == (100, 0, [])


def test_figures_fit_together() -> None:
    figures = measure(3, num_segments=1, workers=0)  # decoded in turn with the model: it waits for every video
    assert (figures.num_videos, figures.num_views) == (3, 3)
    busy = figures.model_ms * figures.videos_per_s / 10  # percent
    assert figures.idle_percent == pytest.approx(100 - busy)
    assert figures.idle_percent >= figures.decode_ms * figures.videos_per_s / 10 - 1e-6
    assert figures.peak_mib > 100
