"""Class-name lists: the shipped orders, users' files in every format, and the errors for bad ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vidprune.errors import ConfigError
from vidprune.labels import class_names, default_class_names


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "abseiling"),
        (6, "arm wrestling"),
        (12, "balloon blowing"),  # a later copy renamed it "inflating balloons"; sorting those names shifts the labels
        (129, "flipping pancake"),
        (171, "juggling soccer ball"),
        (375, "using segway"),
        (399, "zumba"),
    ],
)
def test_kinetics_follows_the_official_order(index: int, name: str) -> None:
    assert class_names("kinetics400", 400)[index] == name


@pytest.mark.parametrize(("index", "name"), [(0, "tench"), (281, "tabby"), (999, "toilet tissue")])
def test_imagenet_follows_the_ilsvrc_order(index: int, name: str) -> None:
    assert class_names("imagenet1k", 1000)[index] == name


@pytest.mark.parametrize(("source", "constant"), [("kinetics400", "KINETICS400"), ("imagenet1k", "IMAGENET")])
def test_shipped_lists_equal_torchvision(source: str, constant: str) -> None:
    pytest.importorskip("torch")
    from vidprune.compat import ensure_torchvision

    if ensure_torchvision() == "absent":
        pytest.skip("torchvision is not installed")
    from torchvision.models import _meta

    assert class_names(source) == tuple(getattr(_meta, f"_{constant}_CATEGORIES"))


def test_default_names_by_number_of_classes() -> None:
    assert default_class_names(400) == class_names("kinetics400")
    assert default_class_names(1000) == class_names("imagenet1k")
    assert default_class_names(3) == ("class 0", "class 1", "class 2")


GOOD = {
    "plain.txt": "run\njump (high)\nsit\n",
    "windows.txt": "\ufeffrun\r\njump (high)\r\nsit\r\n\r\n",
    "list.json": json.dumps(["run", "jump (high)", "sit"]),
    "by_index.json": json.dumps({"2": "sit", "0": "run", "1": "jump (high)"}),
    "by_name.json": json.dumps({"sit": 2, "run": 0, "jump (high)": 1}),
    "double_quotes.json": json.dumps({'"sit"': 2, '"run"': 0, '"jump (high)"': 1}),
    "rows.csv": "1,jump (high)\n0,run\n2,sit\n",
    "header.csv": "id,name\n0,run\n1,jump (high)\n2,sit\n",
    "names.csv": 'run\n"jump (high)"\nsit\n',
}


@pytest.mark.parametrize("file", GOOD)
def test_user_files_of_every_format(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.write_bytes(GOOD[file].encode())
    assert class_names(str(path), 3) == ("run", "jump (high)", "sit")


def test_a_name_with_a_comma_in_quotes(tmp_path: Path) -> None:
    path = tmp_path / "comma.csv"
    path.write_text('0,"salt, pepper"\n1,run\n')
    assert class_names(str(path)) == ("salt, pepper", "run")


BAD = {
    "empty.txt": ("", "empty"),
    "blank.txt": ("run\n\nsit\n", "no name for class 1"),
    "repeated.txt": ("run\nsit\nrun\n", "more than once: run"),
    "count.txt": ("run\nsit\n", "2 names for a model of 3 classes"),
    "latin1.txt": (b"caf\xe9\n", "utf-8"),
    "broken.json": ("[", "line 1"),
    "number.json": ("3", "must be a list"),
    "mixed.json": ('["run", 4]', "must be a list"),
    "gap.json": ('{"0": "run", "3": "sit", "4": "lie"}', "missing are 1, 2"),
    "far.json": ('{"0": "run", "999999999999": "sit"}', "missing are 1"),
    "from_one.csv": ("\n".join(f"{i},n{i}" for i in range(8, 18)), "missing are 0, 1, 2, 3, 4 and 3 more"),
    "words.json": ('{"one": "run", "two": "sit"}', "index 'one'"),
    "bools.json": ('{"run": true, "sit": false}', "index True"),
    "negative.json": ('{"run": -1, "sit": 0}', "index -1"),
    "same_index.json": ('{"run": 0, "sit": 0}', "both 'run' and 'sit'"),
    "empty.json": ("{}", "empty"),
    "columns.csv": ("0,run\n1,salt, pepper\n", "double quotes"),
    "twice.csv": ("0,run\n0,sit\n", "both 'run' and 'sit'"),
    "only_header.csv": ("id,name\n", "empty"),
    "unclosed.csv": ('0,"run\n1,sit\n', "unexpected end"),
    "names.yaml": ("- run\n", ".txt, .json, .csv"),
}


@pytest.mark.parametrize("file", BAD)
def test_bad_files_say_what_is_wrong_in_one_line(tmp_path: Path, file: str) -> None:
    content, message = BAD[file]
    path = tmp_path / file
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        class_names(str(path), 3)
    assert message in str(caught.value)
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_list_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="kinetics400, imagenet1k, demo"):
        class_names("kinetics600")


def test_a_shipped_list_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="400 names for a model of 174 classes"):
        class_names("kinetics400", 174)
