"""Files that verbs write: their folders are made, and what cannot be written is said before anything is computed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidprune.errors import ConfigError

RUN_KEY = "run"  # digest of the settings that a row depends on


def prepare_file(path: Path | None) -> None:
    """Make the folder of a file that will be written, if one will be. Raises `ConfigError` where it cannot be."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.open("a", encoding="utf-8").close()  # creates it empty, or leaves what is there
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}; name a file in a writable folder") from None


class RowsFile:
    """One JSON line per input, in a file that `prepare_file` made; the same command goes on where it stopped.

    Attributes:
        done: the "path" of every row that is there and tells no error. Failures are tried again.

    Raises:
        ConfigError: the file cannot be written, holds something else, or rows of another run than `facts` tell.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any]) -> None:
        self._path = path
        rows = [row for row in _read_rows(path) if "error" not in row]
        for row in rows:
            _check_same_run(path, row, facts)
        self.done = frozenset(str(row["path"]) for row in rows)
        self._replace([_line(row) for row in rows])
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row; it is in the file when this returns, whatever happens to the next one."""
        try:
            self._file.write(_line(row))
            self._file.flush()
        except OSError as error:
            raise ConfigError(
                f"cannot write {self._path}: {error.strerror}; rows before this one are complete"
            ) from None

    def close(self) -> None:
        self._file.close()

    def _replace(self, lines: list[str]) -> None:
        """Leave out failures and a line that a kill cut short; a reader never sees half a file."""
        from vidprune.evaluation.text_files import replace_text

        try:
            replace_text(self._path, "".join(lines))
        except OSError as error:
            raise ConfigError(f"cannot write {self._path}: {error.strerror or error}") from None


def _read_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
        lines = list(file)  # not str.splitlines, which also splits at characters that a file name may hold
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            if number == len(lines) and not line.endswith("\n"):
                break  # cut short
            row = None
        if not isinstance(row, dict) or "path" not in row or not ({RUN_KEY, "error"} & set(row)):
            raise ConfigError(f"{path} exists and line {number} is no row of this command; name another file")
        rows.append(row)
    return rows


def _check_same_run(path: Path, row: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
    from vidprune.evaluation.identity import differences

    if row[RUN_KEY] == facts[RUN_KEY]:
        return
    shown = [key for key in facts if key not in (RUN_KEY, "num_kept")]
    told = differences({key: row.get(key) for key in shown}, {key: facts[key] for key in shown})
    raise ConfigError(
        f"{path} holds rows of another run; what differs: {', '.join(told) or 'settings that rows do not show'}. "
        "Name another file, or remove this one"
    )


def _line(row: Mapping[str, Any]) -> str:
    """A row as one line; a file name's bytes that are no UTF-8 become JSON's own escapes."""
    return json.dumps(row, ensure_ascii=False).encode(errors="backslashreplace").decode() + "\n"
