"""The label-order check: published labels pass, every known way of getting them wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from vidprune.evaluation.label_order import check_class_names, check_label_order, num_moved_by_renaming
from vidprune.evaluation.manifests import RENAMED_KINETICS400, Manifest, ManifestEntry, read_manifest
from vidprune.labels import class_names

REAL_LIST = REPOSITORY.parent / "shared" / "data" / "kinetics400" / "val_list_mmaction.txt"
OFFICIAL = class_names("kinetics400")
LATER = [RENAMED_KINETICS400.get(name, name) for name in OFFICIAL]
PUBLISHED = {"jf7RDuUTrsQ": 325, "JTlatknwOrY": 233, "y9r115bgfNk": 320, "ZnIDviwA8CE": 244}


def manifest(labels: dict[str, int | None]) -> Manifest:
    return Manifest(tuple(ManifestEntry(i, Path(f"{i}.mp4"), label) for i, label in labels.items()), "list", "csv", ())


@pytest.mark.parametrize("name", ["{}", "val/snowboarding/{}", "{}_000010_000020", "val/{}.clip"])
def test_published_labels_agree_however_the_files_are_named(name: str) -> None:
    order = check_label_order(manifest({name.format(i): label for i, label in PUBLISHED.items()} | {"other": 399}))
    assert (order.status, order.text) == ("agrees", "label order agrees with Kinetics-400 on 4 of 4 known videos")


@pytest.mark.skipif(not REAL_LIST.is_file(), reason=f"no real list at {REAL_LIST}")
def test_the_real_validation_list_agrees() -> None:
    order = check_label_order(read_manifest(REAL_LIST))
    assert (order.status, order.text) == ("agrees", "label order agrees with Kinetics-400 on 4 of 4 known videos")


def test_labels_from_the_sorted_later_names() -> None:
    sorted_names = sorted(LATER)
    labels = {i: sorted_names.index(LATER[label]) for i, label in PUBLISHED.items()}
    order = check_label_order(manifest(labels))
    assert order.status == "disagrees"
    assert "differs from Kinetics-400 on 3 of 4 known videos" in order.text
    assert "JTlatknwOrY has label 232 instead of 233 (playing harmonica)" in order.text
    assert "jf7RDuUTrsQ" not in order.text
    assert "every video of 300 of the 400 classes counts as wrong, so at most about 25% of the true" in order.text


def test_labels_that_count_from_one() -> None:
    order = check_label_order(manifest({i: label + 1 for i, label in PUBLISHED.items()}))
    assert order.status == "disagrees"
    assert "the labels count from 1: subtract 1" in order.text


def test_labels_in_a_wholly_different_order() -> None:
    order = check_label_order(manifest(dict(zip(PUBLISHED, (1, 2, 3, 4), strict=True))))
    assert "differs from Kinetics-400 on 4 of 4 known videos" in order.text
    assert "accuracy falls towards chance" in order.text
    one_wrong = check_label_order(manifest(PUBLISHED | {"y9r115bgfNk": 12}))
    assert "on 1 of 4 known videos: y9r115bgfNk has label 12 instead of 320 (sniffing)" in one_wrong.text
    assert "\n" not in one_wrong.text


@pytest.mark.parametrize(
    ("labels", "num_classes", "text"),
    [
        ({"other": 3}, None, "none of the four known"),
        ({"jf7RDuUTrsQ": None}, None, "no labels"),
        ({"jf7RDuUTrsQ": 3}, 600, "not the 400 classes"),
        ({"jf7RDuUTrsQ": 3, "other": 599}, None, "not the 400 classes"),
        ({"jf7RDuUTrsQx": 3}, 400, "none of the four known"),
    ],
)
def test_what_cannot_be_known_is_said_to_be_unknown(
    labels: dict[str, int | None], num_classes: int | None, text: str
) -> None:
    order = check_label_order(manifest(labels), num_classes)
    assert order.status == "unknown"
    assert text in order.text


def test_class_names_in_the_published_order_agree_under_both_sets_of_names() -> None:
    assert check_class_names(OFFICIAL).status == "agrees"
    assert check_class_names(LATER).status == "agrees"
    assert check_class_names([name.replace(" ", "_") for name in LATER]).status == "agrees"


def test_sorted_later_names_are_shifted() -> None:
    order = check_class_names(sorted(LATER))
    assert order.status == "disagrees"
    assert order.text.startswith("300 of 400 class names stand at another number than in Kinetics-400, the first at 12")
    assert "'bandaging' instead of 'balloon blowing'" in order.text


def test_names_of_another_dataset_are_not_judged() -> None:
    assert check_class_names(["run", "sit"]).status == "unknown"
    assert check_class_names([f"class {i}" for i in range(400)]).status == "unknown"
    assert check_class_names([]).status == "unknown"


def test_thirteen_names_differ_and_shift_three_quarters_of_the_classes() -> None:
    assert len(RENAMED_KINETICS400) == 13
    assert set(RENAMED_KINETICS400) <= set(OFFICIAL)
    assert not set(RENAMED_KINETICS400.values()) & set(OFFICIAL)
    known = {12, 53, 73, 100, 108, 136, 158, 186, 203, 214, 308, 320}  # and "tying tie"
    assert {OFFICIAL.index(name) for name in RENAMED_KINETICS400} - known == {OFFICIAL.index("tying tie")}
    assert num_moved_by_renaming() == 300
