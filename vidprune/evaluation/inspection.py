"""What can be said about a manifest before anything runs: rows, labels, missing files, label order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from vidprune.evaluation.label_order import LabelOrder, check_class_names, check_label_order
from vidprune.evaluation.manifests import Manifest, find_missing, scan_manifest

NUM_EXAMPLES = 5

# Kinetics-400 validation sets in the wild; copies differ, and so do the accuracies measured on them.
KNOWN_SIZES = {
    19796: "mmaction2's and VideoMAE V2's copy of the Kinetics-400 validation set",
    19761: "SlowFast's copy of the Kinetics-400 validation set",
    19888: "a copy of the Kinetics-400 validation set from cvdfoundation",
    19818: "a copy of the Kinetics-400 validation set from cvdfoundation",
    17747: "what the official site still had of the Kinetics-400 validation set",
}


@dataclass(frozen=True)
class ClassCount:
    """How many videos one class has."""

    label: int
    num_videos: int


@dataclass(frozen=True)
class ManifestReport:
    """What `inspect_manifest` found.

    Attributes:
        format: how the manifest was read.
        num_videos: its usable rows.
        num_labelled: those with a label.
        num_classes_seen: distinct labels.
        label_range: the lowest and highest label, or None without labels.
        num_repeated: rows left out as repetitions.
        num_missing: videos whose file does not exist; `missing` names the first.
        label_order: the verdict on the known Kinetics-400 videos.
        fewest, most: the classes with the fewest and the most videos.
        num_empty_classes: classes without a video; None where the number of classes is not known.
        known_size: whose copy of Kinetics-400 has this many videos, or None.
        warnings: one line each; the manifest can be used.
        problems: one line each; it cannot be used, or not wholly.
    """

    format: str
    num_videos: int
    num_labelled: int
    num_classes_seen: int
    label_range: tuple[int, int] | None
    num_repeated: int
    num_missing: int
    missing: tuple[str, ...]
    label_order: LabelOrder
    fewest: tuple[ClassCount, ...]
    most: tuple[ClassCount, ...]
    num_empty_classes: int | None
    known_size: str | None
    warnings: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def usable(self) -> bool:
        return not self.problems


def inspect_manifest(
    path: str | Path,
    *,
    root: str | Path | None = None,
    format: str = "auto",
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
    own_label_order: bool = False,
) -> ManifestReport:
    """Read a manifest, look for its files and judge its labels. Arguments as in `read_manifest`.

    Args:
        own_label_order: the model was trained with other numbers than the published ones, so a label order that
            differs from Kinetics-400's is a warning and no problem.

    Raises:
        ConfigError: where nothing can be read.
    """
    manifest, found = scan_manifest(path, root=root, format=format, class_names=class_names, num_classes=num_classes)
    if num_classes is None and class_names is not None:
        num_classes = len(class_names)
    problems: list[str] = []
    warnings = list(manifest.warnings)
    order = check_label_order(manifest, num_classes)
    if order.status == "disagrees":
        (warnings if own_label_order else problems).append(order.text)
    names_order = check_class_names(class_names or ())
    if names_order.status == "disagrees":
        warnings.append(names_order.text)
    missing = find_missing(manifest)
    if missing:
        problems.append(_missing_line(missing[0].path, len(missing), len(manifest.entries)))
    problems += found  # last: there can be one per line
    counts = _class_counts(manifest)
    return ManifestReport(
        format=manifest.format,
        num_videos=len(manifest.entries),
        num_labelled=sum(entry.label is not None for entry in manifest.entries),
        num_classes_seen=len(counts),
        label_range=(min(c.label for c in counts), max(c.label for c in counts)) if counts else None,
        num_repeated=manifest.num_repeated,
        num_missing=len(missing),
        missing=tuple(str(entry.path) for entry in missing[:NUM_EXAMPLES]),
        label_order=order,
        fewest=tuple(counts[:NUM_EXAMPLES]),
        most=tuple(counts[: -NUM_EXAMPLES - 1 : -1]),
        num_empty_classes=None if num_classes is None else num_classes - len(counts),
        known_size=KNOWN_SIZES.get(len(manifest.entries)),
        warnings=tuple(warnings),
        problems=tuple(problems),
    )


def _missing_line(first: Path, num_missing: int, num_videos: int) -> str:
    if num_missing == num_videos:
        return f"none of the {num_videos} files exists, the first would be {first}; is the root folder right?"
    return f"{num_missing} of {num_videos} files do not exist, the first is {first}"


def _class_counts(manifest: Manifest) -> list[ClassCount]:
    """Videos per class, the fewest first."""
    counts = Counter(entry.label for entry in manifest.entries if entry.label is not None)
    return [ClassCount(label, number) for label, number in sorted(counts.items(), key=lambda item: (item[1], item[0]))]
