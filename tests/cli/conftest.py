"""Files for the command line to work on, and a way to call it in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.media import write_video


@dataclass
class Finished:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[dict]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def vidprune(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Finished]:
    """Call the command line's own entry point with the given arguments."""
    from vidprune.cli import main

    def call(*arguments: object) -> Finished:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["vidprune", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as leave:
            code = leave.code if isinstance(leave.code, int) else 0
        captured = capsys.readouterr()
        return Finished(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small valid video."""
    return write_video(tmp_path_factory.mktemp("clips") / "good.mp4", range(40), size=(112, 150))


@pytest.fixture(scope="session")
def bad_files(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> dict[str, Path]:
    """One file for each way in which a file can be no video."""
    folder = tmp_path_factory.mktemp("bad")
    files = {name: folder / f"{name}.mp4" for name in ("missing", "empty", "garbage", "html", "audio_only", "beheaded")}
    files["empty"].write_bytes(b"")
    files["garbage"].write_bytes(bytes(range(256)) * 40)
    files["html"].write_text("<!DOCTYPE html><html><body>404 Not Found</body></html>")
    files["beheaded"].write_bytes(clip.read_bytes()[:400])
    _write_audio(files["audio_only"])
    files["folder"] = folder / "folder.mp4"
    files["folder"].mkdir()
    return files


def _write_audio(path: Path) -> None:
    import av
    import numpy as np

    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
