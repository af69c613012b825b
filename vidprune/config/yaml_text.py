"""YAML as configs use it: plain values, every key once, no aliases."""

from __future__ import annotations

from functools import cache
from typing import Any

from vidprune.errors import ConfigError

MAX_BYTES = 1 << 20
"""Of a config file; a long sweep has some 10 kB."""


def parse_yaml(text: str) -> Any:
    """The value that a YAML text stands for. Raises `ConfigError` with one line that says where it is wrong.

    PyYAML alone takes the last of repeated keys without a word. Aliases are refused, since a few lines of them stand
    for more values than fit into memory, and since a config is to be read from top to bottom.
    """
    import yaml

    try:
        return yaml.load(text, Loader=_loader())
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: such as a date with a 13th month
        raise ConfigError(" ".join(str(error).split())) from None


@cache
def _loader() -> Any:
    """PyYAML's safe loader, stricter. Made when it is needed: importing PyYAML takes time."""
    import yaml

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                event = self.peek_event()
                raise yaml.MarkedYAMLError(
                    problem=f"found the alias *{event.anchor}; write the value out", problem_mark=event.start_mark
                )
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            mapping: dict[Any, Any] = super().construct_mapping(node, deep)
            seen = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node)
                if key in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"found the key {key!r} twice; keep one", problem_mark=key_node.start_mark
                    )
                seen.add(key)
            return mapping

    return Loader
