"""A store's header.json: what made its predictions. Read and checked here, so that damage is one clear line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidprune.errors import VidpruneError
from vidprune.evaluation.identity import digest

NAME = "header.json"
FORMAT = 1
STORED = ("logits", "probs")  # what a row keeps of a video: every view's logits, or their averaged softmax

_KINDS: dict[str, type | tuple[type, ...]] = {
    "identity": dict,
    "num_classes": int,
    "class_names": list,
    "num_tokens": int,
    "num_kept": (int, type(None)),
    "cost": (dict, type(None)),
    "weights": str,
    "num_listed": int,
    "num_labelled": int,
    "manifest": dict,
    "config": dict,
    "environment": dict,
}
_OF_A_REPORT = [key for key in _KINDS if key not in ("identity", "cost", "config")]


class StoreError(VidpruneError):
    """A store that cannot be read, written, or continued by the run at hand."""


def new_header(identity: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What a run that begins writes down."""
    return {"format": FORMAT, "digest": digest(identity), "identity": identity, **facts}


def header_bytes(header: Mapping[str, Any]) -> bytes:
    """As JSON. A file name's bytes that are no UTF-8 become JSON's own escapes, and come back as they were."""
    return json.dumps(header, indent=2, ensure_ascii=False).encode(errors="backslashreplace")


def read_header(folder: Path) -> dict[str, Any]:
    """The header of a store. Raises `StoreError` where there is none, or it is damaged or of another format."""
    path = folder / NAME
    try:
        header = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StoreError(f"{folder} is no run: cannot read its {NAME} ({error.strerror or error})") from None
    except (ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None
    if not isinstance(header, dict):
        raise _damaged(path, f"it holds a {type(header).__name__}, not a mapping")
    if header.get("format") != FORMAT:
        raise StoreError(f"{folder} has store format {header.get('format')!r}, this version reads {FORMAT}")
    wrong = [key for key, kind in _KINDS.items() if key in header and not isinstance(header[key], kind)]
    if wrong:
        raise _damaged(path, f"of the wrong kind: {', '.join(wrong)}")
    missing = [key for key in _OF_A_REPORT if key not in header]
    if missing and len(missing) < len(_OF_A_REPORT):  # a store that no report is made of has none of them
        raise _damaged(path, f"it lacks {', '.join(missing)}")
    if "identity" not in header or header.get("digest") != digest(header["identity"]):
        raise _damaged(path, "its identity was changed since it was written")
    if len(header.get("class_names", ())) != header.get("num_classes", 0):
        raise _damaged(path, f"{len(header.get('class_names', ()))} names for {header.get('num_classes', 0)} classes")
    return header


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(f"{path} is damaged: {what}; put back a copy, or evaluate again into another folder")
