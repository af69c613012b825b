"""Lists and folders that mislead: one clear line, and no video that is listed is dropped."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidprune.errors import ConfigError
from vidprune.evaluation.manifests import find_missing, read_manifest, scan_manifest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a.mp4 1\nb.mp4 " + "9" * 5000, "line 2: expected 'path label' with whole numbers"),
        ("path,label\na.mp4," + "9" * 5000, "line 2: label '9+' is no whole number"),
        ("path,label\na.mp4,--5", "line 2: label '--5' is no whole number"),
    ],
)
def test_numbers_that_are_none_are_problems_of_their_line(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ConfigError, match=problem):
        read_manifest(tmp_path / "list.csv")


def test_a_column_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label,Label\na.mp4,1,2\n")
    with pytest.raises(ConfigError, match="the header names a column more than once: label"):
        scan_manifest(tmp_path / "list.csv")


def test_an_endless_file_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidprune.evaluation.manifests.reading.MAX_BYTES", 1000)
    with pytest.raises(ConfigError, match="/dev/zero is no manifest: it is larger than 1,000 bytes"):
        read_manifest("/dev/zero")


def test_links_to_nothing_are_missing_videos_and_hide_no_other(tmp_path: Path) -> None:
    (tmp_path / "good.mp4").write_bytes(b"video")
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "gone.mp4").symlink_to("nowhere")
    manifest = read_manifest(tmp_path)
    assert [entry.video_id for entry in manifest.entries] == ["gone", "good", "loop"]
    assert [entry.video_id for entry in find_missing(manifest)] == ["gone", "loop"]
    (tmp_path / "list.txt").write_text("good\nloop\n")
    listed = read_manifest(tmp_path / "list.txt", format="paths")
    assert [entry.path.name for entry in listed.entries] == ["good.mp4", "loop"]
