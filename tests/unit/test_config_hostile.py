"""Config files that mislead, or that would fill the memory: one clear error line."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidprune.config import check_config
from vidprune.config.reading import apply_settings, read_data
from vidprune.errors import ConfigError

BOMB = "device: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{key}: &{name} [{', '.join([f'*{before}'] * 9)}]\n"
    for key, name, before in zip(("dtype", "colour", "backend"), "bcd", "abc", strict=True)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("seed: 1\ndevice: cpu\nseed: 2\n", "found the key 'seed' twice; keep one.*line 3"),
        ("model: {name: demo, name: videomae_base}", "found the key 'name' twice"),
        (BOMB, r"found the alias \*a; write the value out.*line 2"),
        ("model: &m {name: demo}\nviews: {<<: *m}", r"found the alias \*m"),
        ("views: &v\n  x: *v\n", r"found the alias \*v"),
        ("device: 2020-13-45", "month must be in 1..12"),
        ("seed: !!int abc", "invalid literal for int"),
        ("seed: " + "9" * 5000, "Exceeds the limit"),
        ("model: " + "[" * 5000, "recursion"),
        ("x: " + "y" * (1 << 20), "is no config: it is larger than 1,048,576 bytes"),
    ],
)
def test_a_misleading_config_is_one_clear_error(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=line) as caught:
        read_data(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    assert len(message) < 400


def test_a_config_is_utf8_with_or_without_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes("\ufeffclass_names: caf\u00e9.txt\n".encode())
    assert read_data(path) == {"class_names": "caf\u00e9.txt"}


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match="/dev/zero is no config"):
        read_data("/dev/zero")


def test_a_setting_with_a_value_that_python_refuses_is_one_clear_error() -> None:
    with pytest.raises(ConfigError, match="setting out: '2020-13-45' is no YAML value"):
        apply_settings({}, ["out=2020-13-45"])


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("workers=-1", "workers must be at least 0, got -1"),
        ("timeout_s=.nan", "timeout_s must be above 0, got nan"),
        ("flush_rows=0", "flush_rows must be at least 1, got 0"),
        ("store=everything", "store must be one of logits, probs, got 'everything'"),
        ("views_per_batch=0", "views_per_batch must be at least 1, got 0"),
        (
            "views.num_segments=1000000000000",
            "must be at most 100,000 and short_side at most 8,192, got 8 x 1000000000000",
        ),
        ("views.short_side=9000", "got 8 x 5 x 3 and 9000"),
    ],
)
def test_what_a_run_would_refuse_is_found_before_it(setting: str, line: str) -> None:
    data = {"model": {"name": "demo"}, "method": {"name": "dense"}, "manifest": "demo", "out": "run", "views": {}}
    assert check_config(data).problems == []
    problems = check_config(apply_settings(data, [setting])).problems
    assert [line in problem for problem in problems] == [True], problems
