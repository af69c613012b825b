"""The durable prediction store: a folder of Parquet parts, one row per video, and a header that says what made them.

    RUN/header.json                what the predictions depend on (identity), its digest, config, surroundings
    RUN/parts/part-*.parquet       rows; a part is never changed once it has its name

A part is written aside, flushed to the disk and renamed, so a reader sees it whole or not at all, and a run that is
killed at any moment loses only the rows it had not yet handed over. Rows may repeat (several processes on one store, a
retry of failed videos): readers keep one row per position of the manifest, see `PredictionStore.chosen_rows`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vidprune.evaluation.identity import differences
from vidprune.evaluation.store_header import NAME, STORED, StoreError, header_bytes, new_header, read_header

__all__ = ["SCHEMA", "STORED", "PredictionStore", "Row", "StoreError", "writing"]

SCHEMA = pa.schema(
    [
        ("position", pa.int64()),
        ("video_id", pa.string()),
        ("path", pa.string()),
        ("label", pa.int64()),
        ("view_logits", pa.list_(pa.float32())),
        ("probs", pa.list_(pa.float32())),
        ("num_kept", pa.int32()),
        ("num_errors", pa.int32()),
        ("num_filled", pa.int32()),
        ("decode_s", pa.float64()),
        ("model_s", pa.float64()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Row:
    """What is kept of one video.

    Attributes:
        position: of the video in the manifest, from 0.
        view_logits: float32 [V * classes], view after view; None where the store keeps probs, or on failure.
        probs: float32 [classes], or None where the store keeps logits, or on failure.
        num_kept: tokens per view that are left at the end.
        num_errors: damaged packets and frames; `num_filled`: frames filled in from their nearest neighbour.
        decode_s, model_s: seconds in the decoder, and this video's share of its batch.
        error: why there is no prediction; None where there is one.
    """

    position: int
    video_id: str
    path: str
    label: int | None
    view_logits: np.ndarray | None = None
    probs: np.ndarray | None = None
    num_kept: int | None = None
    num_errors: int | None = None
    num_filled: int | None = None
    decode_s: float | None = None
    model_s: float | None = None
    error: str | None = None


class PredictionStore:
    """An open store. `create_or_resume` to write, `open` to read."""

    def __init__(self, folder: Path, header: Mapping[str, Any], environment: Mapping[str, Any] | None = None) -> None:
        self.folder = folder
        self.header = header
        self.environment = environment or {}  # of the run that appends; the header's is that of the run that began
        self._num_written = 0

    @classmethod
    def create_or_resume(
        cls, folder: str | Path, identity: Mapping[str, Any], facts: Mapping[str, Any] | None = None
    ) -> PredictionStore:
        """Start a store, or go on with one that the same `identity` made.

        Args:
            identity: what the predictions depend on; nested mappings of plain values.
            facts: whatever else the header should say; stays as the run that started the store said it. Every part
                notes the "environment" among the facts of the run that wrote it.

        Raises:
            StoreError: the folder holds the results of another identity (the facts that differ are named), something
                else, or cannot be written.
        """
        folder = Path(folder)
        header = new_header(identity, facts or {})
        with writing(folder):
            (folder / "parts").mkdir(parents=True, exist_ok=True)
            if not (folder / NAME).exists():
                if any((folder / "parts").glob("part-*.parquet")):
                    raise StoreError(f"{folder} holds predictions without a {NAME}; name another folder")
                _create(folder / NAME, header_bytes(header))
            _remove_leftovers(folder)
        known = cls.open(folder).header
        if known["digest"] != header["digest"]:
            changed = differences(known["identity"], json.loads(json.dumps(identity)))
            raise StoreError(
                f"{folder} holds the predictions of another run; what differs: {'; '.join(changed)}. "
                "Name another folder, or repeat the settings of that run"
            )
        return cls(folder, known, header.get("environment"))

    @classmethod
    def open(cls, folder: str | Path) -> PredictionStore:
        """A store to read. Raises `StoreError` where there is none."""
        folder = Path(folder)
        return cls(folder, read_header(folder))

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows as one part; when this returns, they are on the disk.

        Raises:
            StoreError: the disk is full or the folder not writable. Parts written before stay readable.
        """
        if not rows:
            return
        names = [field.name for field in fields(Row)]
        table = pa.table({name: [_storable(getattr(row, name)) for row in rows] for name in names}, schema=SCHEMA)
        table = table.replace_schema_metadata({"environment": json.dumps(self.environment, sort_keys=True)})
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        # Sorts by time of writing, so that which row is the earlier does not depend on the file system.
        name = f"part-{time.time_ns():020d}-{socket.gethostname()}-{os.getpid()}-{self._num_written}.parquet"
        with writing(self.folder):
            _write_durably(self.folder / "parts" / name, memoryview(buffer.getvalue()))
        self._num_written += 1

    def parts(self) -> list[Path]:
        """Finished parts, oldest first."""
        return sorted((self.folder / "parts").glob("part-*.parquet"))

    def environments(self) -> list[tuple[dict[str, Any], int]]:
        """The surroundings that rows were computed in, with how many rows each, in order of first use."""
        counts: dict[str, int] = {}
        for path in self.parts():
            with _reading(path):
                facts = pq.read_metadata(path)
                text = (facts.metadata or {}).get(b"environment", b"{}").decode()
                json.loads(text)
            counts[text] = counts.get(text, 0) + facts.num_rows
        return [(json.loads(text), count) for text, count in counts.items()]

    def chosen_rows(self) -> dict[int, tuple[int, int, bool]]:
        """For each position that has a row, the one that counts: (part, row within it, whether it failed).

        A prediction goes before a failure, then the earlier part and row before the later.
        """
        chosen: dict[int, tuple[int, int, bool]] = {}
        for number, path in enumerate(self.parts()):
            table = _read(path, ["position", "error"])
            failed = np.asarray(table["error"].is_valid())
            for row, position in enumerate(table["position"].to_pylist()):
                known = chosen.get(position)
                if known is None or (known[2] and not failed[row]):
                    chosen[position] = (number, row, bool(failed[row]))
        return chosen

    def read(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows that count, part by part, so that memory holds one part at a time."""
        by_part: dict[int, list[int]] = {}
        for part, row, _ in self.chosen_rows().values():
            by_part.setdefault(part, []).append(row)
        parts = self.parts()
        for part, rows in sorted(by_part.items()):
            yield _read(parts[part], columns).take(sorted(rows))

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows that count in one table, in the order of the manifest."""
        wanted = None if columns is None else list(dict.fromkeys(["position", *columns]))
        tables = list(self.read(wanted))
        if not tables:
            return SCHEMA.empty_table() if wanted is None else SCHEMA.empty_table().select(wanted)
        return pa.concat_tables(tables).sort_by("position")


def _storable(value: Any) -> Any:
    """A file name's bytes that are no UTF-8, which Parquet's text cannot hold, as escapes: "caf\\udce9"."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def _read(path: Path, columns: Sequence[str] | None) -> pa.Table:
    names = SCHEMA.names if columns is None else list(columns)
    with _reading(path):
        if not pq.read_schema(path).equals(SCHEMA):
            raise ValueError("its columns are not those of a store")
        return pq.read_table(path, columns=names, partitioning=None, page_checksum_verification=True)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turns what a damaged part makes of its reader into a `StoreError`."""
    try:
        yield
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(
            f"cannot read {path}: {' '.join(str(error).split())}; delete this part and evaluate again to refill it"
        ) from None


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turns the system's errors inside it into a `StoreError` that says what to do."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"cannot write to {folder}: {error.strerror or error}; what was stored before is complete: make room (or "
            "make the folder writable) and run the same command again"
        ) from None


def _write_durably(path: Path, data: bytes | memoryview) -> None:
    aside = _write_aside(path, data)
    os.replace(aside, path)
    _sync_folder(path.parent)


def _create(path: Path, data: bytes) -> None:
    """Like `_write_durably`, but the first of several writers wins."""
    aside = _write_aside(path, data)
    try:
        os.link(aside, path)
    except FileExistsError:
        pass
    except OSError:  # a file system without hard links
        os.replace(aside, path)
    aside.unlink(missing_ok=True)
    _sync_folder(path.parent)


def _write_aside(path: Path, data: bytes | memoryview) -> Path:
    aside = path.parent / f".{path.name}.{socket.gethostname()}.{os.getpid()}.tmp"
    try:
        with aside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    return aside


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the rename itself reaches the disk
    finally:
        os.close(descriptor)


def _remove_leftovers(folder: Path) -> None:
    """Delete what killed writers of this machine left aside; a living one's file is left alone."""
    for file in [*folder.glob(".*.tmp"), *(folder / "parts").glob(".*.tmp")]:
        host, _, process = file.name.removesuffix(".tmp").rpartition(".")
        if host.endswith(f".{socket.gethostname()}") and process.isdigit() and not _is_alive(int(process)):
            file.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
