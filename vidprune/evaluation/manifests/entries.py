"""What a manifest is made of, and the form every format is first brought into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ManifestEntry:
    """One video to evaluate.

    Attributes:
        video_id: unique in the manifest and the same wherever the videos lie: the path as listed, relative to the root
            where it lies under it, without a video's suffix. Two paths that differ in the suffix alone keep it.
        path: the file; it need not exist (see `find_missing`).
        label: class index from 0, or None where the manifest has no labels.
    """

    video_id: str
    path: Path
    label: int | None


@dataclass(frozen=True)
class Manifest:
    """The videos of one list or folder.

    Attributes:
        entries: one per video, in the order listed.
        source: the list or folder they come from.
        format: how it was read, one of `FORMATS` except "auto".
        warnings: one line each about what was decided while reading, such as repeated rows.
        num_repeated: rows left out because an earlier row names the same file with the same label.
    """

    entries: tuple[ManifestEntry, ...]
    source: str
    format: str
    warnings: tuple[str, ...]
    num_repeated: int = 0


@dataclass(frozen=True)
class Row:
    """One row as listed, before any file is looked for.

    Attributes:
        where: what messages call it, such as "line 7".
        text: the path as listed.
        label: class index, or None.
        also: other paths, without suffix, under which the same video is commonly stored.
    """

    where: str
    text: str
    label: int | None
    also: tuple[str, ...] = ()


@dataclass
class Rows:
    """What the reader of one format yields; a row with a problem is not among `rows`."""

    format: str
    rows: list[Row]
    problems: list[str]
    warnings: list[str]
