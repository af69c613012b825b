"""Files without usable video: one clear line that names the file, from every backend."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from tests.media import _add_cover, _write_cover, write_audio, write_video
from vidprune.errors import ConfigError, MissingDependencyError, VideoDecodeError
from vidprune.video import read_frames


def _bytes(data: bytes, name: str = "bad.mp4") -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return make


def _index_cut_off(folder: Path) -> Path:
    path = write_video(folder / "bad.mp4")
    path.write_bytes(path.read_bytes()[:3000])
    return path


def _cover_alone(folder: Path) -> Path:
    with av.open(str(folder / "bad.mp4"), "w") as out:
        _write_cover(out, _add_cover(out))
    return folder / "bad.mp4"


def _fifo(folder: Path) -> Path:
    os.mkfifo(folder / "bad.mp4")
    return folder / "bad.mp4"


BAD_FILES: dict[str, tuple[Callable[[Path], Path], str | None]] = {
    "missing": (lambda folder: folder / "bad.mp4", "no such file"),
    "folder": (lambda folder: folder, "it is a folder"),
    "empty": (_bytes(b""), "the file is empty"),
    "garbage": (_bytes(np.random.default_rng(0).bytes(5000)), None),
    "html": (_bytes(b"<!DOCTYPE html><html><body>404 Not Found</body></html>\n" * 40), None),
    "text": (_bytes(b"not a video\n" * 100, "bad.dat"), None),
    "index cut off": (_index_cut_off, None),
    "sound alone": (lambda folder: write_audio(folder / "bad.m4a"), None),
    "pipe": (_fifo, "not a regular file"),
}


@pytest.mark.parametrize("backend", ["pyav", "decord", "torchcodec"])
@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_file_without_video_is_one_clear_line(tmp_path: Path, kind: str, backend: str) -> None:
    make, reason = BAD_FILES[kind]
    path = make(tmp_path)
    try:
        with pytest.raises(VideoDecodeError, match=reason) as caught:
            read_frames(path, [0], backend=backend)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message


def test_pyav_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(VideoDecodeError, match="no video stream in the file"):
        read_frames(write_audio(tmp_path / "sound.m4a"), [0])
    with pytest.raises(VideoDecodeError, match="only a cover picture in the file"):
        read_frames(_cover_alone(tmp_path), [0])
    with pytest.raises(VideoDecodeError, match=r"bad\.mp4': Invalid data found when processing input"):
        read_frames(_bytes(np.random.default_rng(0).bytes(5000))(tmp_path), [0])
    with pytest.raises(VideoDecodeError, match="it is a text file"):
        read_frames(_bytes(b"not a video\n" * 100, "list.txt")(tmp_path), [0])


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "locked.mp4", range(2))
    path.chmod(0)
    with pytest.raises(VideoDecodeError, match="permission denied"):
        read_frames(path, [0])


def test_a_name_that_looks_like_a_protocol_is_still_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_video(tmp_path / "10:30 é.mp4", range(3))
    monkeypatch.chdir(tmp_path)
    for backend in ("pyav", "decord"):
        assert len(read_frames("10:30 é.mp4", [0, 2], backend=backend).frames) == 2


def test_a_backend_that_is_not_installed_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "clip.mp4", range(2))
    for backend, module in (("decord", "decord"), ("torchcodec", "torchcodec.decoders")):
        monkeypatch.setitem(sys.modules, module, None)  # makes its import fail
        with pytest.raises(MissingDependencyError, match="pip install"):
            read_frames(path, [0], backend=backend)


@pytest.mark.parametrize("path", [["a.mp4"], 3, None])
def test_what_is_no_path_is_said(path: object) -> None:
    with pytest.raises(ConfigError, match="a video is named by the path of its file, got"):
        read_frames(path, [0])  # type: ignore[arg-type]
