"""Any manifest to a checked `Manifest`: read the file, parse its format, find the files, settle repeated rows."""

from __future__ import annotations

import codecs
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vidprune.errors import ConfigError, unknown_name
from vidprune.evaluation.manifests.entries import Manifest, ManifestEntry, Row, Rows
from vidprune.evaluation.manifests.files import FileFinder, split_suffix
from vidprune.evaluation.manifests.folders import parse_folder
from vidprune.evaluation.manifests.lists import parse_list
from vidprune.evaluation.manifests.names import ClassLookup
from vidprune.evaluation.manifests.tables import header_format, parse_csv, parse_kinetics

MAX_BYTES = 1 << 28  # some 5 million rows; a device file would never end
FORMATS = ("auto", "videomae", "mmaction", "paths", "csv", "kinetics", "folder")


def read_manifest(
    path: str | Path,
    *,
    root: str | Path | None = None,
    format: str = "auto",
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> Manifest:
    """Read the videos and labels of a list or folder. Does not ask whether the files exist (see `find_missing`).

    Args:
        path: a text list, a CSV or a folder. Blank lines and lines that start with # are skipped.
        root: folder of relative paths; None is the manifest's own folder (VideoMAE's code takes the current one).
        format: "auto", or "videomae" (path label), "mmaction" (path [[num_frames] label]), "paths" (path alone), "csv"
            (with a header), "kinetics" (label,youtube_id,time_start,time_end,split), "folder" (one folder per class).
        class_names: entry i names class i; for formats that name classes.
        num_classes: labels must be below it; None takes the number of `class_names`, if given.

    Raises:
        ConfigError: on anything wrong with the list; the message names the first line at fault and counts the others.
    """
    manifest, problems = scan_manifest(path, root=root, format=format, class_names=class_names, num_classes=num_classes)
    if problems:
        others = f" (and {len(problems) - 1} more problems)" if len(problems) > 1 else ""
        raise ConfigError(f"manifest {path}: {problems[0]}{others}")
    return manifest


def scan_manifest(
    path: str | Path,
    *,
    root: str | Path | None = None,
    format: str = "auto",
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> tuple[Manifest, tuple[str, ...]]:
    """The rows of a manifest that are right, and one line for each that is not. Arguments as in `read_manifest`.

    Raises:
        ConfigError: only where nothing can be read: no such file, not text, an unknown format.
    """
    if format not in FORMATS:
        raise unknown_name("manifest format", format, FORMATS)
    if root is not None and not os.path.isdir(root):
        raise ConfigError(f"root {root} is not a folder; give the folder that the paths of {path} start from")
    lookup = None if class_names is None else ClassLookup(class_names)
    limit = num_classes if num_classes is not None else (len(class_names) if class_names is not None else None)
    found = _parse(str(path), format, lookup, num_classes)
    base = str(path) if found.format == "folder" else os.path.dirname(str(path)) if root is None else str(root)
    rows = [row for row in found.rows if _label_in_range(row, limit, found.problems)]
    first = _settle_repeated(rows, base, found)
    num_repeated = len(rows) - len(first)  # those with another label are problems, and no manifest comes of them
    entries = _to_entries(first, base, found.problems)
    if not entries and not found.problems:
        found.problems.append("no video is listed")
    manifest = Manifest(entries, str(path), found.format, tuple(found.warnings), num_repeated)
    return manifest, tuple(found.problems)


def _parse(path: str, format: str, lookup: ClassLookup | None, num_classes: int | None) -> Rows:
    is_folder = os.path.isdir(path)
    if is_folder != (format == "folder") and (is_folder or format == "folder") and format != "auto":
        raise ConfigError(
            f"manifest {path} is {'a' if is_folder else 'no'} folder, but its format is given as {format}"
        )
    if is_folder:
        return parse_folder(path, lookup, num_classes)
    lines = _content_lines(path)
    if not lines:
        return Rows("paths" if format == "auto" else format, [], [], [])
    header = header_format(lines[0][1])
    if format in ("csv", "kinetics") and header != format:
        raise ConfigError(
            f"manifest {path}: format {format} needs a header line that names the columns, got {lines[0][1]!r}"
        )
    if format in ("auto", "csv", "kinetics") and header is not None:
        return parse_kinetics(lines, lookup) if header == "kinetics" else parse_csv(lines, lookup)
    return parse_list(lines, {"videomae": 1, "paths": 0}.get(format))


def _content_lines(path: str) -> list[tuple[int, str]]:
    """(line number, text) of every line that is neither blank nor a comment."""
    if split_suffix(path)[1]:
        raise ConfigError(f"manifest {path} is a video by its suffix; give a list of videos or their folder")
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read manifest {path}: {error.strerror or error}") from None
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{path} is no manifest: it is larger than {MAX_BYTES:,} bytes")
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # what Windows PowerShell writes
    try:
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"manifest {path}, line {line}: not UTF-8 text; save the list as UTF-8") from None
    if "\0" in text:
        raise ConfigError(f"manifest {path} is not a text file: it holds zero bytes")
    # Not str.splitlines, which also splits at characters that a file name may hold.
    lines = ((number, line.strip(" \t\r")) for number, line in enumerate(text.split("\n"), start=1))
    return [(number, line) for number, line in lines if line and not line.startswith("#")]


def _label_in_range(row: Row, limit: int | None, problems: list[str]) -> bool:
    if row.label is None or (row.label >= 0 and (limit is None or row.label < limit)):
        return True
    allowed = "at least 0" if limit is None else f"from 0 to {limit - 1}"
    hint = "; do the labels count from 1?" if row.label == limit else ""
    problems.append(f"{row.where}: label {row.label} of {row.text} must be {allowed}{hint}")
    return False


def _settle_repeated(rows: list[Row], root: str, found: Rows) -> dict[str, Row]:
    """The first row of every file, by the file's path. A file with two labels is a problem."""
    finder = FileFinder(root)
    first: dict[str, Row] = {}
    repeated: list[Row] = []
    for row in rows:
        file, warning = finder.find(row)
        if warning:
            found.warnings.append(warning)
        earlier = first.setdefault(file, row)
        if earlier is not row and earlier.label == row.label:
            repeated.append(row)
        elif earlier is not row:
            found.problems.append(
                f"{row.where}: {row.text} has label {row.label}, but label {earlier.label} in {earlier.where}"
            )
    if repeated:
        some = ", ".join(row.where for row in repeated[:5]) + (", ..." if len(repeated) > 5 else "")
        found.warnings.append(f"{len(repeated)} rows repeat a video with the same label and are left out: {some}")
    return first


def _to_entries(first: dict[str, Row], root: str, problems: list[str]) -> tuple[ManifestEntry, ...]:
    ids = _video_ids([row.text for row in first.values()], root)
    shared = {video_id for video_id, count in Counter(ids).items() if count > 1}
    entries = []
    for video_id, (file, row) in zip(ids, first.items(), strict=True):
        if video_id in shared:
            problems.append(f"{row.where}: {file} shares the id {video_id!r} with another video; rename one of them")
        entries.append(ManifestEntry(video_id, Path(file), row.label))
    return tuple(entries)


def _video_ids(texts: list[str], root: str) -> list[str]:
    """Paths relative to the root, without suffix; those that would then be equal keep it."""
    prefix = os.path.join(os.path.abspath(root), "")
    paths = [os.path.normpath(text).removeprefix(prefix).replace(os.sep, "/") for text in texts]
    stems = [split_suffix(path)[0] for path in paths]
    count = Counter(stems)
    return [stem if count[stem] == 1 else path for stem, path in zip(stems, paths, strict=True)]
