"""A folder with one folder per class, or a folder of videos without labels."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vidprune.errors import ConfigError
from vidprune.evaluation.manifests.entries import Row, Rows
from vidprune.evaluation.manifests.files import split_suffix
from vidprune.evaluation.manifests.names import ClassLookup
from vidprune.labels import class_names as read_class_names

_SPLITS = {"train", "training", "val", "validate", "validation", "test"}


def parse_folder(folder: str, lookup: ClassLookup | None, num_classes: int | None) -> Rows:
    """Rows of all videos under `folder`, sorted by class folder, then by name.

    A class folder gets its label from `lookup`; else from its name where all names are numbers; else from Kinetics-400
    where all names are Kinetics-400's; else by its place in sorted order, with a warning.
    """
    classes, loose = _contents(folder)
    if classes and set(map(str.lower, classes)) <= _SPLITS:
        example = os.path.join(folder, classes[0])
        raise ConfigError(
            f"folder {folder} holds splits, not classes ({', '.join(classes)}): name one, such as {example}"
        )
    found = Rows("folder", [], [], [])
    if not classes:
        found.rows = [Row(name, name, None) for name in loose]
        return found
    if loose:
        found.warnings.append(f"{len(loose)} videos directly in {folder} are in no class folder and are left out")
    for name, label in _labels(classes, lookup, num_classes, found).items():
        videos = sorted(_videos(folder, name))
        found.rows += [Row(video, video, label) for video in videos]
        if not videos:
            found.warnings.append(f"class folder {name!r} holds no video")
    return found


def _labels(classes: list[str], lookup: ClassLookup | None, num_classes: int | None, found: Rows) -> dict[str, int]:
    if lookup is None and all(name.isascii() and name.isdecimal() for name in classes):
        return {name: int(name) for name in classes}
    if lookup is None and num_classes in (None, 400):
        kinetics = ClassLookup(read_class_names("kinetics400"))
        if num_classes == 400 or all(kinetics.index(name) is not None for name in classes):
            lookup = kinetics
            found.warnings.append("no class names given: the folders get their numbers in Kinetics-400")
    if lookup is None:
        found.warnings.append(
            f"no class names given: labels are places in the sorted list of {len(classes)} folders, "
            f"{classes[0]!r} = 0 to {classes[-1]!r} = {len(classes) - 1}; give names in the model's order to be sure"
        )
        return {name: index for index, name in enumerate(classes)}
    indices = {name: lookup.index(name) for name in classes}
    found.problems += [f"folder {name}: {lookup.problem(name)}" for name, index in indices.items() if index is None]
    return {name: index for name, index in indices.items() if index is not None}


def _contents(folder: str) -> tuple[list[str], list[str]]:
    """Sorted names of the folders and of the videos directly in `folder`; hidden ones are left out."""
    try:
        with os.scandir(folder) as listing:
            entries = [entry for entry in listing if not entry.name.startswith(".")]
    except OSError as error:
        raise ConfigError(f"cannot read folder {folder}: {error.strerror}") from None
    classes = sorted(entry.name for entry in entries if os.path.isdir(entry))  # entry.is_dir() raises for looped links
    # A link to nothing is listed too: it is a video that is missing.
    return classes, sorted(e.name for e in entries if split_suffix(e.name)[1] and e.name not in classes)


def _videos(folder: str, name: str) -> Iterator[str]:
    """Videos of one class folder, however deep, as paths relative to `folder`."""
    for parent, _, files in os.walk(os.path.join(folder, name)):
        for file in files:
            if split_suffix(file)[1] and not file.startswith("."):
                yield os.path.relpath(os.path.join(parent, file), folder)
