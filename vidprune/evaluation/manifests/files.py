"""From paths as listed to files: which suffixes are videos, and how a path without one finds its file."""

from __future__ import annotations

import os
import re

from vidprune.evaluation.manifests.entries import Manifest, ManifestEntry, Row

# In the order in which a path without suffix is looked for.
VIDEO_SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts"),
    *(".wmv", ".flv", ".3gp", ".ogv", ".gif", ".y4m"),
)
_CLIP_TIMES = re.compile(r"_[0-9]{6}_[0-9]{6}$")  # Kinetics: <youtube id>_<start second>_<end second>


def split_suffix(text: str) -> tuple[str, str]:
    """("a/b", ".mp4") of "a/b.mp4". A suffix that no video has belongs to the name: ("v1.2", "") of "v1.2"."""
    stem, suffix = os.path.splitext(text)
    return (stem, suffix) if suffix.lower() in VIDEO_SUFFIXES else (text, "")


def find_missing(manifest: Manifest) -> list[ManifestEntry]:
    """The entries whose file does not exist, in order. Asks the file system once per entry."""
    return [entry for entry in manifest.entries if not os.path.isfile(entry.path)]


class FileFinder:
    """Finds the files of paths without suffix. Lists each folder once, however many of its files are asked for."""

    def __init__(self, root: str) -> None:
        self.root = root
        self._folders: dict[str, tuple[dict[str, list[str]], dict[str, list[str]]]] = {}

    def find(self, row: Row) -> tuple[str, str | None]:
        """The row's path below the root, and a warning or None.

        A path with a video's suffix is taken as it is. Else the file of that name with any such suffix, then any name
        in `row.also`, then the one Kinetics clip `<name>_<start>_<end>`. Where there is none the path stays as listed.
        """
        if split_suffix(row.text)[1]:
            return os.path.normpath(os.path.join(self.root, row.text)), None
        for text in (row.text, *row.also):
            folder, name = os.path.split(os.path.join(self.root, text))
            names = self._listing(folder)[0].get(name, [])
            if names:
                chosen = min(names, key=_preference)
                several = f"{row.where}: {row.text} could be {' or '.join(sorted(names))}; {chosen} is taken"
                return os.path.normpath(os.path.join(folder, chosen)), several if len(names) > 1 else None
        folder, name = os.path.split(os.path.join(self.root, row.text))
        clips = self._listing(folder)[1].get(name, [])
        if len(clips) == 1:
            return os.path.normpath(os.path.join(folder, clips[0])), None
        several = f"{row.where}: {row.text} could be {' or '.join(sorted(clips))}; none is taken, list the one you mean"
        return os.path.normpath(os.path.join(folder, name)), several if clips else None

    def _listing(self, folder: str) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Files of `folder` by name without suffix, and the Kinetics clips by YouTube id."""
        if folder not in self._folders:
            by_stem: dict[str, list[str]] = {}
            by_youtube_id: dict[str, list[str]] = {}
            for name in _file_names(folder):
                stem = split_suffix(name)[0]
                by_stem.setdefault(stem, []).append(name)
                times = _CLIP_TIMES.search(stem)
                if times:
                    by_youtube_id.setdefault(stem[: times.start()], []).append(name)
            self._folders[folder] = by_stem, by_youtube_id
        return self._folders[folder]


def _file_names(folder: str) -> list[str]:
    try:
        with os.scandir(folder or ".") as listing:
            return [entry.name for entry in listing if _is_file(entry)]
    except OSError:
        return []  # its files are missing, which `find_missing` says of each


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()  # unlike os.path.isfile, asks the file system for links alone
    except OSError:  # a link that leads to itself
        return False


def _preference(name: str) -> tuple[int, str]:
    suffix = split_suffix(name)[1].lower()
    return (VIDEO_SUFFIXES.index(suffix) if suffix else -1, name)
