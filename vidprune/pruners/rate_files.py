"""Files of kept counts per block, in the form that DiffRate's authors publish them, for `DiffRate`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vidprune.errors import ConfigError, unknown_name

PRUNE, MERGE = "prune_kept_num", "merge_kept_num"


def read_rates(path: str | Path, entry: str | None = None) -> tuple[object, object]:
    """The two lists of a JSON file, as they are in it: tokens kept after pruning, and after merging, per block.

    The file is {"prune_kept_num": [...], "merge_kept_num": [...]}, or such mappings under names, as in the published
    file of several models and costs; `entry` then says which, "ViT-S-DeiT/2.9". A list may be written as a string, and
    a step that is not used as null or "None".

    Raises:
        ConfigError: for a file that cannot be read or holds no such lists.
        UnknownNameError: for an entry that the file does not have; the message offers the nearest.
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read rates {str(path)!r}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"rates {str(path)!r} are not JSON: {error}") from None
    found = dict(_schedules(data, ""))
    if not found:
        raise ConfigError(f'rates {str(path)!r} hold no {{"{PRUNE}": [...], "{MERGE}": [...]}}')
    if entry is None and len(found) > 1:
        raise ConfigError(f"rates {str(path)!r} hold {len(found)} schedules; set entry to one of {', '.join(found)}")
    if entry is not None and entry not in found:
        raise unknown_name("entry", entry, found)
    chosen = found[entry] if entry is not None else next(iter(found.values()))
    return _plain(chosen.get(PRUNE)), _plain(chosen.get(MERGE))


def _schedules(data: Any, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every schedule below `data`, with the names that lead to it joined by "/"."""
    if not isinstance(data, Mapping):
        return
    if PRUNE in data or MERGE in data:
        yield name, data
        return
    for key, value in data.items():
        yield from _schedules(value, f"{name}/{key}" if name else str(key))


def _plain(value: Any) -> Any:
    """A list that is written as a string, as a list; "None" as None."""
    if not isinstance(value, str):
        return value
    try:
        return None if value == "None" else json.loads(value)
    except ValueError:
        return value
