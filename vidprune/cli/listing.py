"""`vidprune list`: every name that a flag or a config accepts."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from vidprune.cli import options as opt
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
    kind: Annotated[str | None, typer.Argument(help="models, methods, proposals or backends; all by default.")] = None,
    as_json: opt.Json = False,
) -> None:
    """List the models, methods, proposals and decoders there are, those of installed plug-ins included."""
    from vidprune.models import MODELS
    from vidprune.proposals import PROPOSALS
    from vidprune.pruners import METHODS
    from vidprune.video import VIDEO_BACKENDS

    registries = {"models": MODELS, "methods": METHODS, "proposals": PROPOSALS, "backends": VIDEO_BACKENDS}
    if kind is not None and kind not in registries:
        raise unknown_name("kind of name", kind, registries)
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
