"""`vidprune list`: every name that a flag or a config accepts."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from typing import Annotated, Any

import typer

from vidprune.cli import flag_types as flag
from vidprune.errors import unknown_name

_BEYOND_REGISTRIES = {
    "models": {
        "demo": "videomae_tiny with the shipped weights; its proposal is x3d_tiny",
        "timm/NAME": "an image model of timm, such as timm/vit_base_patch16_224",
        "frames/NAME": "an image ViT of timm on every frame of a clip; frames:16:clip/NAME: 16 frames, one budget",
    },
    "methods": {"dense": "keep everything"},
}


def list_names(
    kind: Annotated[
        str | None, typer.Argument(help="models, methods, proposals or backends; or one method, to see its fields.")
    ] = None,
    as_json: flag.Json = False,
) -> None:
    """List the models, methods, proposals and decoders there are, those of installed plug-ins included.

    `vidprune list tome` shows what may be set of a method, with --method-option or in a config.
    """
    from vidprune.models import MODELS
    from vidprune.proposals import PROPOSALS
    from vidprune.pruners import METHODS
    from vidprune.video import VIDEO_BACKENDS

    registries = {"models": MODELS, "methods": METHODS, "proposals": PROPOSALS, "backends": VIDEO_BACKENDS}
    if kind is not None and kind not in registries:
        if kind not in METHODS:
            raise unknown_name("kind of name or method", kind, (*registries, *METHODS.names()))
        _show_method(kind, METHODS.get(kind), as_json)
        return
    chosen = registries if kind is None else {kind: registries[kind]}
    listing = {title: {name: reg.describe(name) for name in reg.names()} for title, reg in chosen.items()}
    for title, extra in _BEYOND_REGISTRIES.items():
        if title in listing:
            listing[title] |= extra
    if as_json:
        print(json.dumps(listing))
        return
    from rich.table import Table

    from vidprune.cli.screen import console

    for title, entries in listing.items():
        table = Table(title=title, title_justify="left", show_header=False, box=None, padding=(0, 2))
        for name, description in entries.items():
            table.add_row(name, description)
        console().print(table)


def _show_method(name: str, method: Any, as_json: bool) -> None:
    """Each field of a method's config with its default and what its docstring says of it."""
    needed = "(needed)"
    fields = {
        field.name: needed if field.default is dataclasses.MISSING else field.default
        for field in dataclasses.fields(method)
    }
    if as_json:
        print(json.dumps({"method": name, "fields": fields}, default=str))
        return
    from rich.table import Table
    from rich.text import Text

    from vidprune.cli.screen import console

    meanings: dict[str, str] = {}
    for base in reversed(method.__mro__):  # a field that is inherited is explained where it comes from
        summary, own = _read_docstring(inspect.cleandoc(base.__doc__ or ""))
        meanings |= own
    console().print(f"{name}: {summary}\n", markup=False)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="")
    for header in ("field", "default", "meaning"):
        table.add_column(header)
    for field, default in fields.items():
        table.add_row(field, str(default), Text(meanings.get(field, "")))
    console().print(table)


def _read_docstring(text: str) -> tuple[str, dict[str, str]]:
    """Its first paragraph, and the meaning of each field under "Args:" or "Attributes:", in one line each."""
    summary = " ".join(text.partition("\n\n")[0].split())
    meanings: dict[str, str] = {}
    names: list[str] = []
    _, _, listed = re.sub(r"^(Args|Attributes):$", "\f", text, flags=re.MULTILINE).partition("\f")
    for line in listed.splitlines():
        if line and not line.startswith(" "):
            break
        entry = re.fullmatch(r" {4}(\w+(?:, \w+)*): (.*)", line)
        if entry:
            names = entry[1].split(", ")
        for name in names:
            meanings[name] = f"{meanings.get(name, '')} {entry[2] if entry else line.strip()}".strip()
    return summary, meanings
