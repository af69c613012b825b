"""Class names in index order: the lists that ship with the package, or a user's file.

`kinetics400` follows the index order of the official annotation, which is alphabetical over the ORIGINAL names
("balloon blowing" is 12); a later copy's folder names, sorted, give shifted labels. `imagenet1k` is ILSVRC 2012's.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from vidprune.errors import ConfigError

_SHIPPED = {
    "kinetics400": "data/labels/kinetics400.txt",
    "imagenet1k": "data/labels/imagenet1k.txt",
    "demo": "data/demo/classes.txt",
}
_LIST_FOR_SIZE = {400: "kinetics400", 1000: "imagenet1k"}


def class_names(source: str, num_classes: int | None = None) -> tuple[str, ...]:
    """The class names of `source`, entry i naming class i.

    Args:
        source: "kinetics400", "imagenet1k", "demo", or a file: `.txt` (one name a line), `.json` (a list, {"0": name}
            or {name: 0}) or `.csv` (rows "index,name", with or without a header, or names alone).
        num_classes: how many classes the model has; None accepts any number.

    Raises:
        ConfigError: no such list, an unreadable file, an empty or repeated name, a missing index or a wrong count.
    """
    if source in _SHIPPED:
        path: Traversable = files("vidprune").joinpath(_SHIPPED[source])
    else:
        path = Path(source)
    if not path.is_file():
        raise ConfigError(f"class names {source!r}: no such list or file; give a file or one of {', '.join(_SHIPPED)}")
    reader = _READERS.get(Path(path.name).suffix.lower())
    if reader is None:
        raise ConfigError(f"class names {source!r}: the file must end in {', '.join(_READERS)}")
    try:
        names = reader(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, csv.Error, ConfigError) as error:
        raise ConfigError(f"class names {source!r}: {' '.join(str(error).split())}") from error
    _check(source, names, num_classes)
    return tuple(names)


def default_class_names(num_classes: int) -> tuple[str, ...]:
    """Names for a model of `num_classes`: Kinetics-400 for 400, ImageNet-1k for 1000, else "class 0", "class 1"..."""
    if num_classes in _LIST_FOR_SIZE:
        return class_names(_LIST_FOR_SIZE[num_classes], num_classes)
    return tuple(f"class {i}" for i in range(num_classes))


def _read_txt(text: str) -> list[str]:
    return [line.strip() for line in text.rstrip().splitlines()]


def _read_json(text: str) -> list[str]:
    data = json.loads(text)
    if isinstance(data, list) and all(isinstance(name, str) for name in data):
        return [_unquoted(name) for name in data]
    if isinstance(data, dict) and all(isinstance(name, str) for name in data.values()):
        return _by_index((index, name) for index, name in data.items())
    if isinstance(data, dict):
        return _by_index((index, name) for name, index in data.items())
    raise ConfigError("the JSON must be a list of names, {index: name} or {name: index}")


def _read_csv(text: str) -> list[str]:
    rows = [[cell.strip() for cell in row] for row in csv.reader(text.splitlines(), strict=True) if row]
    columns = {len(row) for row in rows}
    if columns == {1}:
        return [row[0] for row in rows]
    if columns - {2}:
        raise ConfigError('the rows must all be "index,name" or all be names; put a name with a comma in double quotes')
    if rows and not rows[0][0].isdecimal():
        rows = rows[1:]  # a header such as "id,name"
    return _by_index((row[0], row[1]) for row in rows)


def _by_index(pairs: Iterable[tuple[object, str]]) -> list[str]:
    """Names sorted by index; refuses an index that is no number, twice there or missing."""
    by_index: dict[int, str] = {}
    for key, name in pairs:
        if isinstance(key, bool) or not str(key).isdecimal():
            raise ConfigError(f"class {name!r} has index {key!r}; an index is a whole number from 0")
        index = int(str(key))
        if index in by_index:
            raise ConfigError(f"index {index} is given to both {by_index[index]!r} and {name!r}")
        by_index[index] = _unquoted(name)
    missing = [i for i in range(len(by_index)) if i not in by_index]
    if missing:
        raise ConfigError(f"{len(by_index)} indices must run from 0 without a gap; missing are {_some(missing)}")
    return [by_index[i] for i in range(len(by_index))]


def _unquoted(name: str) -> str:
    """pytorchvideo's Kinetics file holds names inside a second pair of quotes."""
    name = name.strip()
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] == '"' else name


def _check(source: str, names: list[str], num_classes: int | None) -> None:
    if not names:
        raise ConfigError(f"class names {source!r}: the file is empty")
    empty = [i for i, name in enumerate(names) if not name]
    if empty:
        raise ConfigError(f"class names {source!r}: no name for class {_some(empty)}")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ConfigError(f"class names {source!r}: given more than once: {_some(repeated)}; make every name distinct")
    if num_classes is not None and len(names) != num_classes:
        raise ConfigError(
            f"class names {source!r}: {len(names)} names for a model of {num_classes} classes; "
            "give the list the model was trained with"
        )


def _some(items: list[int] | list[str], limit: int = 5) -> str:
    shown = ", ".join(str(item) for item in items[:limit])
    return shown if len(items) <= limit else f"{shown} and {len(items) - limit} more"


_READERS = {".txt": _read_txt, ".json": _read_json, ".csv": _read_csv}
