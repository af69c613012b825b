"""One name -> one lazily imported object. Third parties add names through entry points, without a change here."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

from vidprune.errors import VidpruneError, unknown_name


class Registry:
    """Maps names to `"module:attribute"` targets that are imported when first asked for.

    Args:
        kind: the word for one entry, used in messages ("proposal", "method").
        entry_point_group: the group in which other packages register more entries, e.g. `vidprune.proposals`.
    """

    def __init__(self, kind: str, entry_point_group: str | None = None) -> None:
        self.kind = kind
        self.entry_point_group = entry_point_group
        self._targets: dict[str, str] = {}
        self._descriptions: dict[str, str] = {}
        self._extended = entry_point_group is None

    def register(self, name: str, target: str, description: str = "") -> None:
        """Add `name` for the object at `target` ("package.module:attribute"). Raises on a name already taken."""
        if name in self._targets:
            raise VidpruneError(f"{self.kind} {name!r} is registered twice: {self._targets[name]} and {target}")
        self._targets[name] = target
        self._descriptions[name] = description

    def names(self) -> list[str]:
        """All known names, ours first, in order of registration."""
        self._extend()
        return list(self._targets)

    def describe(self, name: str) -> str:
        """The one-line description given at registration ("" if none)."""
        self._check(name)
        return self._descriptions[name]

    def get(self, name: str) -> Any:
        """The object registered as `name`. Raises `UnknownNameError` with the nearest names."""
        self._check(name)
        module, _, attribute = self._targets[name].partition(":")
        return getattr(importlib.import_module(module), attribute)

    def __contains__(self, name: object) -> bool:
        return name in self.names()

    def _check(self, name: str) -> None:
        if name not in self:
            raise unknown_name(self.kind, name, self._targets)

    def _extend(self) -> None:
        if self._extended or self.entry_point_group is None:
            return
        self._extended = True
        for point in entry_points(group=self.entry_point_group):
            if point.name not in self._targets:  # a name of ours cannot be replaced from outside
                self.register(point.name, point.value, f"from {point.dist.name if point.dist else 'another package'}")
