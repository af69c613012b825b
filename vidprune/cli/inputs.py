"""Which files a verb works on: files, folders, patterns, or a list on standard input."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from vidprune.config import DEMO, demo_file
from vidprune.errors import ConfigError
from vidprune.evaluation.manifests import VIDEO_SUFFIXES


def expand_inputs(inputs: Iterable[str], suffixes: Collection[str] = VIDEO_SUFFIXES) -> list[Path]:
    """Files named by `inputs`: each a file, a folder (searched for `suffixes`), a pattern, "-" for paths on
    standard input, one a line, or "demo" and "demo:N" for the shipped clips or one of them.

    A named file is taken as it is, even where it does not exist: the reader says what is wrong with it, and the others
    still come out. A folder or a pattern that names nothing is an error at once. Duplicates are dropped, order is kept.
    """
    files: list[Path] = []
    for text in inputs:
        files += _expand(text, suffixes)
    if not files:
        raise ConfigError(
            "no input given: name a video file, a folder, a pattern such as 'clips/*.mp4', or - for a list"
        )
    return list(dict.fromkeys(files))


def _expand(text: str, suffixes: Collection[str]) -> list[Path]:
    if text == "-":
        return [Path(line) for line in (raw.strip() for raw in sys.stdin) if line]
    path = Path(text)
    exists = os.path.exists(path)  # Path.exists raises for a name that is too long
    if not exists and (text == DEMO or text.startswith(f"{DEMO}:")):
        return _demo_clips(text)
    if os.path.isdir(path):
        found = sorted(p for p in path.rglob("*") if p.suffix.lower() in suffixes and p.is_file())
        if not found:
            kind = "video" if suffixes is VIDEO_SUFFIXES else "image"
            raise ConfigError(f"folder {text} holds no {kind}; looked for {' '.join(sorted(suffixes))}")
        return found
    if not exists and glob.has_magic(text):
        matches = sorted(Path(match) for match in glob.glob(text, recursive=True))
        if not matches:
            raise ConfigError(f"pattern {text!r} matches no file")
        return [match for match in matches if match.is_file()]
    return [path]


def _demo_clips(text: str) -> list[Path]:
    clips = sorted(demo_file("clips").glob("*.mp4"))
    if text == DEMO:
        return clips
    number = text.partition(":")[2]
    if not number.isdecimal() or int(number) >= len(clips):
        raise ConfigError(f"{text!r} names no shipped clip; allowed: demo, or demo:0 to demo:{len(clips) - 1}")
    return [clips[int(number)]]
