"""Markup that is safe by construction: what is not `Html` is text, and is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable


class Html(str):
    """Finished markup; any other string is text, whatever it holds."""

    __slots__ = ()


_EMPTY_ELEMENTS = ("img", "meta", "line", "path")


def tag(name: str, /, *children: str | None, **attributes: object) -> Html:
    """An element of HTML or SVG.

    Args:
        children: text or markup; None is left out.
        attributes: `class_` gives class, `data_value` data-value; one that is None is left out.
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _EMPTY_ELEMENTS:
        return Html(f"<{name}{given}/>")
    return Html(f"<{name}{given}>{joined(children)}</{name}>")


def joined(parts: Iterable[str | None]) -> Html:
    """Parts after each other; text among them is escaped."""
    return Html("".join(part if isinstance(part, Html) else html.escape(part) for part in parts if part is not None))
