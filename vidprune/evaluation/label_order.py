"""Do labels and class names follow the Kinetics-400 order of the published weights? Asked before hours are lost.

The order is alphabetical over the original class names. Later copies renamed 13 of the 400 classes: labels taken from
their sorted folder names are shifted, and a good model then seems to be a bad one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vidprune.evaluation.manifests import RENAMED_KINETICS400, ClassLookup, Manifest
from vidprune.labels import class_names as read_class_names

KINETICS400 = "kinetics400"
# The label that both mmaction2's and VideoMAE V2's validation lists give to these videos.
KNOWN_VIDEOS = {"jf7RDuUTrsQ": 325, "JTlatknwOrY": 233, "y9r115bgfNk": 320, "ZnIDviwA8CE": 244}
_ID_LENGTH = 11  # of a YouTube id


@dataclass(frozen=True)
class LabelOrder:
    """What the check found.

    Attributes:
        status: "agrees", "disagrees", or "unknown" where nothing that is known was there to compare.
        text: one line in words; for "disagrees" with what differs and what that does to accuracy.
    """

    status: Literal["agrees", "disagrees", "unknown"]
    text: str


def check_label_order(manifest: Manifest, num_classes: int | None = None) -> LabelOrder:
    """Compare the labels of four known Kinetics-400 validation videos, found by their YouTube ids, with the published
    ones. Manifests without labels or of another number of classes give "unknown"."""
    labels = [entry.label for entry in manifest.entries if entry.label is not None]
    if not labels:
        return LabelOrder("unknown", "label order not checked: the manifest has no labels")
    if num_classes not in (None, 400) or max(labels) >= 400:
        return LabelOrder("unknown", "label order not checked: these are not the 400 classes of Kinetics-400")
    seen = {
        name: entry.label
        for entry in manifest.entries
        if entry.label is not None and (name := _known_id(entry.video_id)) is not None
    }
    if not seen:
        return LabelOrder("unknown", "label order not checked: none of the four known Kinetics-400 videos is listed")
    wrong = {name: label for name, label in seen.items() if label != KNOWN_VIDEOS[name]}
    if not wrong:
        return LabelOrder("agrees", f"label order agrees with Kinetics-400 on {len(seen)} of {len(seen)} known videos")
    names = read_class_names(KINETICS400)
    listed = ", ".join(
        f"{name} has label {label} instead of {KNOWN_VIDEOS[name]} ({names[KNOWN_VIDEOS[name]]})"
        for name, label in wrong.items()
    )
    return LabelOrder(
        "disagrees",
        f"label order differs from Kinetics-400 on {len(wrong)} of {len(seen)} known videos: {listed}; {_cause(seen)}",
    )


def check_class_names(names: Sequence[str]) -> LabelOrder:
    """Compare the order of 400 class names with Kinetics-400's; a renamed class is the same class."""
    official = read_class_names(KINETICS400)
    lookup = ClassLookup(official)
    places = [lookup.index(name) for name in names]
    if len(names) != len(official) or sum(place is not None for place in places) < len(official) // 2:
        return LabelOrder("unknown", "class names not checked: they are not those of Kinetics-400")
    moved = [i for i, place in enumerate(places) if place is not None and place != i]
    strange = [name for name, place in zip(names, places, strict=True) if place is None]
    if moved:
        first = moved[0]
        return LabelOrder(
            "disagrees",
            f"{len(moved)} of {len(names)} class names stand at another number than in Kinetics-400, the first at "
            f"{first}: {names[first]!r} instead of {official[first]!r}; labels made from this list count every video "
            "of these classes as wrong for the published weights; sort by the original names",
        )
    note = f" ({len(strange)} names are unknown, such as {strange[0]!r})" if strange else ""
    return LabelOrder("agrees", f"class names stand in the order of Kinetics-400{note}")


def num_moved_by_renaming() -> int:
    """How many of the 400 classes change their number when the later names are sorted: 300."""
    later = _later_names()
    return sum(name != moved for name, moved in zip(later, sorted(later), strict=True))


def _cause(seen: Mapping[str, int]) -> str:
    if all(label == KNOWN_VIDEOS[name] + 1 for name, label in seen.items()):
        return "the labels count from 1: subtract 1, else almost every right prediction counts as wrong"
    later = _later_names()
    by_later_names = sorted(later)
    if all(label == by_later_names.index(later[KNOWN_VIDEOS[name]]) for name, label in seen.items()):
        moved = num_moved_by_renaming()
        return (
            "the labels are places in the sorted list of later class names (13 were renamed): every video of "
            f"{moved} of the 400 classes counts as wrong, so at most about {1 - moved / 400:.0%} of the true accuracy "
            "is left; number the classes by their original names"
        )
    return (
        "with the published weights right predictions then count as wrong, and accuracy falls towards chance (0.25 %); "
        "make the labels anew from Kinetics-400's own list of classes"
    )


def _later_names() -> list[str]:
    return [RENAMED_KINETICS400.get(name, name) for name in read_class_names(KINETICS400)]


def _known_id(video_id: str) -> str | None:
    """The known YouTube id that names this video, alone or before the clip's times."""
    name = video_id.rpartition("/")[2]
    youtube_id, rest = name[:_ID_LENGTH], name[_ID_LENGTH:]
    return youtube_id if youtube_id in KNOWN_VIDEOS and (not rest or rest[0] in "_. ") else None
