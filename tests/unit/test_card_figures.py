"""The cards' measured figures are those of results/, and the tables say what the files hold."""

from __future__ import annotations

import pytest

from tests.tool_modules import tool

figures = tool("card_figures")


def test_every_card_holds_the_figures_of_the_results() -> None:
    for path, text in figures.cards().items():
        assert path.read_text() == text, f"{path.name} is out of date: python tools/card_figures.py"


def test_every_method_is_on_a_card() -> None:
    from vidprune.pruners import METHODS

    on_cards = {name.split(",")[0].split("+")[0] for names in figures.CARDS.values() for name in names}
    assert on_cards >= set(METHODS.names())


def test_tables_say_what_the_files_hold() -> None:
    rows = [
        {"method": "dense", "target": "100", "top1": "91.94"},
        {"method": "random", "target": "50", "top1": "61.22"},
        {"method": "tome", "target": "50", "top1": "91.25"},
    ]
    *_, line = figures.accuracy_table(["tome"], {"frames": rows})
    assert line == "| tome, images | - | 91.2 | - | - / 61.2 / - | 91.9 |"
    assert figures.accuracy_table(["sta"], {"frames": rows}) == []
    speeds = [
        {"name": "tome r=8", "batch": "1", "speed_up": "0.957", "gmacs_reduction": "1.5"},
        {"name": "tome r=8", "batch": "8", "speed_up": "1.25", "gmacs_reduction": "1.5"},
        {"name": "papr keep_ratio=.5 + tome r=8", "batch": "8", "speed_up": "2", "gmacs_reduction": "2.5"},
    ]
    *_, line, _, note = figures.speed_table(["tome"], {"vit_small": speeds})
    assert line == "| vit_small, `tome r=8` | 1.50x | 0.96x | 1.25x |"
    assert note == "On vit_small it is slower than dense at batch 1, for all its fewer GFLOPs."
    *_, line = figures.speed_table(["papr+tome"], {"vit_small": speeds})
    assert line == "| vit_small, `papr keep_ratio=.5 + tome r=8` | 2.50x | - | 2.00x |"
    with pytest.raises(ValueError, match="two markers"):
        figures.card("no markers", [])
