"""Settings, kinds of configs, and the points of a sweep: right ones, wrong ones, and their names."""

from __future__ import annotations

from typing import Any

import pytest

from vidprune.config import (
    ModelConfig,
    apply_settings,
    build_methods,
    check_config,
    expand,
    parse_config,
    parse_evaluation,
    parse_sweep,
)
from vidprune.errors import VidpruneError

CHAIN = [{"name": "random", "keep_ratio": 0.5}, {"name": "tome", "r": 4}]
SWEEP = {"manifest": "m.txt", "out": "o", "models": [{"name": "videomae_tiny"}], "methods": [{"name": "random"}]}


def test_settings_go_where_their_path_leads() -> None:
    data = {"model": {"name": "demo"}, "method": CHAIN}
    settings = ["method.1.r=[8, 4]", "views.num_crops=1", "model.checkpoint=a=b.pth", "seed=null", "dtype=bfloat16"]
    assert apply_settings(data, settings) == {
        "model": {"name": "demo", "checkpoint": "a=b.pth"},
        "method": [CHAIN[0], {"name": "tome", "r": [8, 4]}],
        "views": {"num_crops": 1},
        "seed": None,
        "dtype": "bfloat16",
    }
    assert data == {"model": {"name": "demo"}, "method": CHAIN}, "what was given is left as it was"


def test_null_is_as_if_the_key_were_not_there() -> None:
    data = {"seed": 5, "dtype": "float16", "model": {"name": "demo", "checkpoint": "x"}}
    run = parse_config(apply_settings(data, ["seed=null", "dtype=", "model.checkpoint=null"]))
    assert (run.seed, run.dtype, run.model) == (0, "float32", ModelConfig("demo"))
    method = {"name": "random", "keep_ratio": 0.5, "seed": 7}
    run = parse_config(apply_settings({"method": method}, ["method.seed=null"]))
    assert run.method == {"name": "random", "keep_ratio": 0.5}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("method", "a setting is key=value"),
        ("=3", "a setting is key=value"),
        ("a..b=3", "a setting is key=value"),
        ("seed=[1", "no YAML value"),
        ("seed.x=1", "seed is 3, which holds no keys"),
        ("method.2.r=1", "'2' must be a place in a list, from 0 to 1"),
        ("method.first.r=1", "'first' must be a place in a list"),
        ("views.num_segment=1", "views: unknown key 'num_segment': did you mean 'num_segments'?"),
        ("sed=1", "unknown key 'sed': did you mean 'seed'?"),
        ("sed=null", "unknown key 'sed': did you mean 'seed'?"),
        ("method.1.rr=null", None),
    ],
)
def test_wrong_settings_are_one_clear_line(setting: str, message: str | None) -> None:
    def parse() -> Any:
        run = parse_config(apply_settings({"seed": 3, "method": CHAIN, "views": {}}, [setting]))
        return check_config({"model": {"name": "videomae_tiny"}, "views": run.views, "method": run.method}).problems

    if message is None:  # a field of the method that never was, cleared
        assert parse() == []
        return
    try:
        problems = parse()
    except VidpruneError as error:
        problems = [str(error)]
    assert len(problems) == 1
    assert message in problems[0]
    assert "\n" not in problems[0]


def test_an_evaluation_has_the_keys_of_its_run_beside_its_own() -> None:
    config = parse_evaluation({"manifest": "m", "out": "o", "limit": 3, "model": {"name": "demo"}, "method": CHAIN})
    assert (config.manifest, config.limit, config.run.model.name) == ("m", 3, "demo")
    assert [method.name for method in build_methods(config.run.method)] == ["random", "tome"]
    for data, message in (
        ({"manifest": "m", "out": "o", "metod": {}}, "unknown key 'metod': did you mean 'method'?"),
        ({"manifest": "m", "out": "o", "limt": 3}, "unknown key 'limt': did you mean 'limit'?"),
        ({"manifest": "m"}, "missing out"),
        ({"manifest": "m", "out": "o", "limit": 0}, "limit must be at least 1"),
        ({"manifest": "m", "out": "o", "limit": "3"}, "limit must be a whole number, got '3'"),
        ({"manifest": "m", "out": "o", "limit": True}, "limit must be a whole number, got True"),
        ({"manifest": "m", "out": "o", "timeout_s": [1]}, "timeout_s must be a number"),
        ({"manifest": 5, "out": "o"}, "manifest must be text, got 5"),
        ({"manifest": "m", "out": "o", "retry_failed": 1}, "retry_failed must be true or false, got 1"),
        ({"manifest": "m", "out": "o", "model": {"name": 3}}, "model: name must be text, got 3"),
        (SWEEP, "a config of `vidprune sweep`"),
    ):
        with pytest.raises(VidpruneError, match=message):
            parse_evaluation(data)
    with pytest.raises(VidpruneError, match="a config of `vidprune evaluate`"):
        parse_config({"manifest": "m", "out": "o"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": []}, "models must be a list of at least one"),
        ({"models": {"name": "demo"}}, "models must be a list"),
        ({"models": [{"nam": "demo"}]}, "did you mean 'name'"),
        ({"model": {"name": "demo"}}, "unknown key 'model': did you mean 'models'?"),
        ({"proposals": [{"checkpoint": "x"}]}, "missing name"),
        ({"grids": []}, "stand beside grids"),
        ({"methods": [{"name": "random", "keep_ratio": [0.5, 0.4]}]}, "each: {keep_ratio: "),
        ({"methods": [{"name": "tome", "each": {"r": 4}}]}, "each must map fields to lists"),
        ({"methods": [{"name": "tome", "each": {"rr": [4]}}]}, "did you mean 'r'"),
        ({"methods": [{"name": "random"}]}, "missing keep_ratio"),
        ({"methods": [[{"name": "dense"}, {"name": "tome", "r": 4}]]}, "cannot be part of a chain"),
    ],
)
def test_wrong_sweeps_are_one_clear_line(change: dict[str, Any], message: str) -> None:
    with pytest.raises(VidpruneError) as caught:
        expand(parse_sweep(SWEEP | change))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def names(data: dict[str, Any]) -> list[str]:
    return [point.name for point in expand(parse_sweep(SWEEP | data))]


def test_points_are_every_combination_and_named_by_what_they_are() -> None:
    methods = [
        {"name": "papr", "each": {"proposal": ["x3d_s", "x3d_m"]}, "keep_ratio": 0.5},
        [{"name": "random", "seed": 2}, {"name": "tome", "each": {"r": [8, [4, 4, 2, 2]]}}],
        {"name": "papr", "proposal": "x3d_s", "input_treatment": "native"},
        {"name": "evit", "keep_ratio": 0.7, "blocks": [1, 2], "fuse": False},
        {"name": "dense"},
    ]
    assert names({"methods": methods, "keep_ratios": [0.45]}) == [
        "videomae_tiny-dense",
        "videomae_tiny-papr-x3d_s-z0.5",
        "videomae_tiny-papr-x3d_m-z0.5",
        "videomae_tiny-random-z0.45-seed2+tome-r8",
        "videomae_tiny-random-z0.45-seed2+tome-r4_4_2_2",
        "videomae_tiny-papr-x3d_s-z0.45-native",
        "videomae_tiny-evit-z0.7-blocks1_2-fuseFalse",
    ]


def test_what_is_named_twice_is_one_point_and_a_longer_sweep_keeps_the_names() -> None:
    short = names({"keep_ratios": [0.5]})
    twice = [{"name": "random"}, {"name": "random", "keep_ratio": 0.5, "seed": 0}]  # a default written out
    assert names({"methods": twice, "keep_ratios": [0.5]}) == short
    long = names({"keep_ratios": [0.3, 0.5, 0.7], "models": [*SWEEP["models"], {"name": "videomae_small"}]})
    assert set(short) < set(long)
    same_name = [{"name": "videomae_tiny"}, {"name": "videomae_tiny", "num_classes": 3}]
    assert names({"keep_ratios": [0.5], "models": same_name}) == [*short, *(f"{name}-2" for name in short)]


def test_grids_are_put_together() -> None:
    model = {"models": [{"name": "videomae_tiny"}]}
    grids = [
        model | {"methods": [{"name": "random"}], "keep_ratios": [0.5]},
        model | {"methods": [{"name": "random"}, {"name": "centre"}], "keep_ratios": [0.5, 0.3]},
    ]
    points = [point.name for point in expand(parse_sweep({"manifest": "m", "out": "o", "grids": grids}))]
    short = [name.removeprefix("videomae_tiny-") for name in points]
    assert short == ["dense", "random-z0.5", "random-z0.3", "centre-z0.5", "centre-z0.3"]
