"""What a newcomer reads first: every flag says what holds without it, and nothing is lost between source and screen."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest

from tests.cli.conftest import Finished
from vidprune.cli.app import VERBS
from vidprune.pruners import METHODS

Run = Callable[..., Finished]
DEFAULTS = {
    "predict": ("(videomae_base)", "(random weights)", "(papr)", "(0.45)", "(videomae)", "(5)", "(3)", "(auto)"),
    "evaluate": ("(auto)", "(one per core)", "(120)", "(0)", "(logits)", "(0.45)"),
    "sweep": ("(auto)", "(one per core)", "(120)"),
}


def words(text: str) -> str:
    return " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize("verb", DEFAULTS)
def test_defaults_are_told(vidprune: Run, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    shown = words(vidprune(verb, "--help").out)
    for default in DEFAULTS[verb]:
        assert f"[default: {default}]" in shown, default


@pytest.mark.parametrize("verb", VERBS)
def test_paragraphs_fill_the_screen(vidprune: Run, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = vidprune(verb, "--help").out.partition("╭")[0]
    lines = [line.strip() for line in text.splitlines()]
    for line, following in itertools.pairwise(lines):
        if line and following:  # broken only where the next word would not have fitted
            assert len(line) + 1 + len(following.split()[0]) > 77, (line, following)


def test_the_defaults_in_the_help_are_those_of_the_config() -> None:
    from vidprune.cli.options import DEFAULT_KEEP_RATIO, RunFlags
    from vidprune.config import EvaluateConfig
    from vidprune.pruners.papr import PaPr
    from vidprune.video import ViewPlan

    run = RunFlags().resolve()
    plan = ViewPlan(**run.views)
    assert (run.model.name, run.method["name"], PaPr(0.5).proposal) == ("videomae_base", "papr", "x3d_s")
    assert (run.method["keep_ratio"], DEFAULT_KEEP_RATIO) == (0.45, 0.45)
    assert (plan.protocol, plan.num_segments, plan.num_crops) == ("videomae", 5, 3)
    assert (run.device, run.dtype, run.backend, run.colour) == ("auto", "float32", "pyav", "rgb")
    evaluation = EvaluateConfig(manifest="a", out="b")
    assert (evaluation.timeout_s, evaluation.max_failed, evaluation.store) == (120, 0, "logits")
    assert evaluation.manifest_format == "auto"


@pytest.mark.parametrize("method", METHODS.names())
def test_every_field_of_a_method_is_explained(vidprune: Run, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    lines = vidprune("list", method).out.splitlines()
    fields = json.loads(vidprune("list", method, "--json").out)["fields"]
    table = {line.split()[0]: line.split(maxsplit=2) for line in lines[3:] if line}
    assert list(table) == list(fields)
    for name, cells in table.items():
        assert len(cells) == 3, f"{method}: the docstring says nothing of {name}"


def test_an_unknown_name_is_offered_kinds_and_methods(vidprune: Run) -> None:
    done = vidprune("list", "tomme")
    assert done.code == 2
    assert "did you mean 'tome'" in done.err


def test_demo_is_a_manifest_for_validate_too(vidprune: Run) -> None:
    done = vidprune("validate", "demo")
    assert done.code == 0
    assert "videos per class  4" in done.out
