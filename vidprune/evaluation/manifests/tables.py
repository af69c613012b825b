"""CSV files with a header: Kinetics' own annotation (label,youtube_id,time_start,time_end,split) and "path,label"."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from itertools import product

from vidprune.errors import ConfigError
from vidprune.evaluation.manifests.entries import Row, Rows
from vidprune.evaluation.manifests.names import ClassLookup
from vidprune.labels import class_names as read_class_names

PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "video", "video_path")
LABEL_COLUMNS = ("label", "class", "label_id", "class_id", "label_index", "class_index", "target")
YOUTUBE_ID = "youtube_id"


def header_format(first_line: str) -> str | None:
    """ "kinetics" or "csv" if `first_line` is a header of ours, else None."""
    try:
        cells = _header(first_line)
    except ConfigError:
        return None  # such as a quoted path in a list between spaces
    if YOUTUBE_ID in cells:
        return "kinetics"
    return "csv" if any(cell in PATH_COLUMNS for cell in cells) and all(map(str.isidentifier, cells)) else None


def parse_csv(lines: list[tuple[int, str]], lookup: ClassLookup | None) -> Rows:
    """Rows of a CSV with a path column and, if there are labels, a label column of numbers or class names."""
    found = Rows("csv", [], [], [])
    for where, cells in _records(lines, found.problems):
        path = next((cells[name] for name in PATH_COLUMNS if cells.get(name)), "")
        text = next((cells[name] for name in LABEL_COLUMNS if name in cells), None)
        label, problem = _label(text, lookup)
        if not path or problem:
            found.problems.append(f"{where}: {problem or 'no path'}")
        else:
            found.rows.append(Row(where, path, label))
    return found


def parse_kinetics(lines: list[tuple[int, str]], lookup: ClassLookup | None) -> Rows:
    """Rows of Kinetics' annotation; without class names those of Kinetics-400 are taken.

    Files are looked for as `<id>_<start>_<end>` with six digits each (the naming of the common download scripts), then
    as `<id>`, in the folder itself and in one per class, with spaces or underscores.
    """
    lookup = lookup or ClassLookup(read_class_names("kinetics400"))
    found = Rows("kinetics", [], [], [])
    splits: set[str] = set()
    for where, cells in _records(lines, found.problems):
        name, youtube_id = cells.get("label", ""), cells.get(YOUTUBE_ID, "")
        try:
            start, end = (int(float(cells[key])) for key in ("time_start", "time_end"))
        except (KeyError, ValueError, OverflowError):
            found.problems.append(f"{where}: time_start and time_end must be seconds, got {', '.join(cells.values())}")
            continue
        label = lookup.index(name) if name else None
        if not youtube_id or (name and label is None):
            found.problems.append(f"{where}: {lookup.problem(name) if youtube_id else 'no youtube_id'}")
            continue
        splits.add(cells.get("split", ""))
        clip = f"{youtube_id}_{start:06d}_{end:06d}"
        folders = ["", *([f"{name}/", f"{name.replace(' ', '_')}/"] if name else [])]
        also = tuple(folder + stem for stem, folder in product((clip, youtube_id), folders))
        found.rows.append(Row(where, clip, label, also[1:]))
    if len(splits) > 1:
        found.warnings.append(f"rows of {len(splits)} splits are read together: {', '.join(sorted(splits))}")
    return found


def _label(text: str | None, lookup: ClassLookup | None) -> tuple[int | None, str | None]:
    if text is None:
        return None, None
    if re.fullmatch(r"-?\d{1,18}", text):  # more digits fit no 64-bit label
        return int(text), None
    if lookup is None or not text:
        return None, f"label {text!r} is no whole number" + ("" if not text else "; give the class names as well")
    index = lookup.index(text)
    return index, lookup.problem(text) if index is None else None


def _records(lines: list[tuple[int, str]], problems: list[str]) -> Iterator[tuple[str, dict[str, str]]]:
    columns = _header(lines[0][1])
    twice = sorted({name for name in columns if name and columns.count(name) > 1})
    if twice:
        raise ConfigError(f"the header names a column more than once: {', '.join(twice)}; keep one of each")
    for number, text in lines[1:]:
        try:
            (cells,) = csv.reader([text], strict=True)
        except csv.Error as error:
            problems.append(f"line {number}: not valid CSV: {error}")
            continue
        if len(cells) != len(columns):
            problems.append(f"line {number}: {len(cells)} columns under a header of {len(columns)}: {text!r}")
            continue
        yield f"line {number}", {column: cell.strip() for column, cell in zip(columns, cells, strict=True)}


def _header(line: str) -> list[str]:
    try:
        (cells,) = csv.reader([line], strict=True)
    except csv.Error as error:
        raise ConfigError(f"the header is not valid CSV: {error}") from None
    return [cell.strip().lower() for cell in cells]
