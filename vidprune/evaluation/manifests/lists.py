"""Lists without a header: "path", "path label" or "path num_frames label", between spaces, tabs or commas.

Columns are taken from the right, since a path may hold spaces and commas. The number of columns is one for the whole
file. Source of the formats: VideoMAE's val.csv (path and label, one space between), mmaction2's annotation lists.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

from vidprune.evaluation.manifests.entries import Row, Rows
from vidprune.evaluation.manifests.files import split_suffix

COLUMNS = {0: "path", 1: "path label", 2: "path num_frames label"}
_LAST_NUMBER = {
    " ": re.compile(r"(.*[^ \t,])[ \t]+(-?[0-9]{1,18})"),  # more digits fit no 64-bit label
    ",": re.compile(r"(.*[^ \t])[ \t]*,[ \t]*(-?[0-9]{1,18})"),
}


@dataclass(frozen=True)
class _Line:
    """A line with its numbers peeled off the right: `paths[n]` is what stays once the last n are gone.

    `certain` says how many numbers follow the path, where the path shows its end by a video's suffix, else None.
    """

    number: int
    paths: tuple[str, ...]
    numbers: tuple[int, ...]
    certain: int | None

    @property
    def num_numbers(self) -> int:
        return len(self.numbers)


def parse_list(lines: list[tuple[int, str]], num_numbers: int | None = None) -> Rows:
    """Rows of the content lines (line number, text); `num_numbers` per row, None to tell it from all rows together."""
    delimiter = max(" ", ",", key=lambda d: sum(_LAST_NUMBER[d].fullmatch(text) is not None for _, text in lines))
    peeled = [_peel(number, text, delimiter) for number, text in lines]
    expected = _vote(peeled) if num_numbers is None else num_numbers
    found = Rows(("paths", "videomae", "mmaction")[expected], [], [], [])
    for line in peeled:
        problem = _problem(line, expected)
        if problem:
            found.problems.append(f"line {line.number}: {problem}")
            continue
        label = line.numbers[0] if expected else None
        found.rows.append(Row(f"line {line.number}", unquoted(line.paths[expected]), label))
    return found


def unquoted(path: str) -> str:
    """Without the double quotes that a CSV writer puts around a path that holds the delimiter."""
    if len(path) >= 2 and path[0] == path[-1] == '"':
        return path[1:-1].replace('""', '"')
    return path


def _peel(number: int, text: str, delimiter: str) -> _Line:
    paths = [text]
    numbers: list[int] = []
    while len(numbers) < 3 and (match := _LAST_NUMBER[delimiter].fullmatch(paths[-1])):
        paths.append(match[1])
        numbers.append(int(match[2]))
    certain = next((n for n, path in enumerate(paths) if split_suffix(unquoted(path))[1]), None)
    return _Line(number, tuple(paths), tuple(numbers), certain)


def _vote(lines: list[_Line]) -> int:
    """Numbers per row of most rows; rows whose path ends in a video's suffix leave no doubt and decide alone."""
    certain = Counter(line.certain for line in lines if line.certain is not None)
    votes = certain or Counter(line.num_numbers for line in lines)
    most = max(votes.values())
    return min(2, *(count for count, number in votes.items() if number == most))


def _problem(line: _Line, expected: int) -> str | None:
    got = repr(line.paths[0])
    if line.num_numbers < expected or (line.certain is not None and line.certain < expected):
        return f"expected {COLUMNS[expected]!r} with whole numbers after the path, got {got}"
    if line.certain is not None and line.certain > expected:
        return f"expected {COLUMNS[expected]!r}, got {line.certain} numbers after the path: {got}"
    return None
