"""Every shipped config is read, and everything it describes is built with random weights in place of its files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from vidprune.config import DEMO, check_config, read_data

FOLDER = Path(__file__).resolve().parents[2] / "configs"
CONFIGS = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "flops_table")  # tested with what reads it
NUM_POINTS = {"papr_table8": 6, "papr_table9": 9, "sweep_demo": 37}


def files_named(value: Any) -> list[str]:
    """Every checkpoint that a config names, wherever it stands."""
    if isinstance(value, dict):
        own = [v for k, v in value.items() if k.endswith("checkpoint")]
        return own + [name for v in value.values() for name in files_named(v)]
    return [name for item in value for name in files_named(item)] if isinstance(value, list) else []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_shipped_config_builds(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = read_data(path)
    monkeypatch.chdir(tmp_path)
    for name in files_named(data):  # empty ones: weights are looked for, and never read
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    if data.get("manifest", DEMO) != DEMO:
        (tmp_path / data["root"]).mkdir(parents=True)
        (tmp_path / data["root"] / "a.mp4").touch()
        (tmp_path / data["manifest"]).write_text("a.mp4 399\n")
    check = check_config(data, source=str(path))
    assert check.problems == []
    assert not any("random" in warning for warning in check.warnings)
    assert check.verb == ("sweep" if path.stem in NUM_POINTS else "run")
    assert len(check.points) == NUM_POINTS.get(path.stem, 1)


def test_the_documented_configs_are_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import yaml

    text = (FOLDER.parent / "docs" / "configs.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", text, re.MULTILINE | re.DOTALL)]
    (tmp_path / "weights").mkdir()
    for name in files_named(blocks):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    checks = [check_config(block) for block in blocks]
    assert [check.problems for check in checks] == [[]] * len(blocks)
    assert [check.verb for check in checks] == ["run", "run", "evaluate", "sweep"]
    assert len(checks[-1].points) == 1 + 6 + 12 + 1


def test_there_are_configs() -> None:
    assert {path.stem for path in CONFIGS} >= {"demo", "papr_videomae_base_k400", *NUM_POINTS}


def test_the_names_of_the_tables_points() -> None:
    paths = {path.stem: path for path in CONFIGS}
    names = [point.name for point in check_config(read_data(paths["papr_table8"])).points]
    assert names == [
        "videomae_base-dense",
        "videomae_base-papr-x3d_s-z0.45",
        "videomae_base-papr-x3d_s-z0.35",
        "videomae_large-dense",
        "videomae_large-papr-x3d_s-z0.5",
        "videomae_large-papr-x3d_s-z0.3",
    ]
    names = [point.name for point in check_config(read_data(paths["sweep_demo"])).points]
    assert len(set(names)) == 37
    assert "demo-papr-random-z0.4+evit-z0.7" in names
    assert all(re.fullmatch(r"[\w.+-]+", name) for name in names)
