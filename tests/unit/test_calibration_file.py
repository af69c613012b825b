"""The file of a calibration: it comes back as it was saved, and what is none is refused in words."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vidprune.errors import ConfigError
from vidprune.pruners.calibration import Calibration, load_calibration
from vidprune.types import TokenGrid


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    saved = Calibration(np.random.rand(3, 16), [0.1, 0.3, 0.2], TokenGrid(1, 4, 4), "timm/some", "lrp", 7, 6)
    saved.save(tmp_path / "c.npz")
    found = load_calibration(tmp_path / "c.npz")
    assert np.array_equal(found.inter, saved.inter)
    assert np.array_equal(found.similarity, saved.similarity)
    facts = (found.grid, found.host, found.method, found.num_inputs, found.num_classes)
    assert facts == (TokenGrid(1, 4, 4), "timm/some", "lrp", 7, 6)
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


def test_files_that_are_no_calibration(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no")
    np.save(tmp_path / "array.npy", np.ones(3))
    np.savez(tmp_path / "other.npz", inter=np.ones((2, 3)))
    np.save(tmp_path / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    for name in ("text.npz", "array.npy", "other.npz", "pickle.npy"):
        with pytest.raises(ConfigError, match="is not a calibration file; make one with `vidprune calibrate`"):
            load_calibration(tmp_path / name)
    with pytest.raises(ConfigError, match=r"cannot read calibration .*none.npz.*No such file"):
        load_calibration(tmp_path / "none.npz")
    with pytest.raises(ConfigError, match="cannot write calibration"):
        Calibration(np.ones((1, 1)), [0.0], TokenGrid(1, 1, 1)).save(tmp_path / "no" / "c.npz")


@pytest.mark.parametrize(
    ("inter", "similarity", "message"),
    [
        (np.full((2, 4), np.nan), [0, 1], "inter holds 8 values that are NaN"),
        (np.ones((2, 5)), [0, 1], r"N = 4 as in grid \(1, 2, 2\), got \[2, 5\]"),
        (np.ones((3, 4)), [0, 1], r"L = 2 as in similarity"),
        (-np.ones((2, 4)), [0, 1], "no negative score"),
        (np.zeros((2, 4)), [0, 1], "at least one positive score per block"),
        (np.ones((2, 4)), [0, np.inf], "similarity holds 1 values"),
        (np.ones(4), [0, 1], "inter must be an array of numbers with 2 axes"),
        (np.array([["a"]]), [0], "inter must be an array of numbers"),
    ],
)
def test_values_that_are_no_calibration(inter: np.ndarray, similarity: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Calibration(inter, similarity, TokenGrid(1, 2, 2))


def test_runs_are_told_apart_by_what_the_file_holds(tmp_path: Path) -> None:
    from vidprune.config import RunConfig
    from vidprune.runs.header import method_identity

    file, identities = tmp_path / "c.npz", []
    for value in (1.0, 2.0, 1.0):
        Calibration(np.full((3, 16), value), [0.1, 0.2, 0.3], TokenGrid(1, 4, 4)).save(file)
        run = RunConfig(method={"name": "star", "keep_ratio": 0.7, "calibration": str(file)})
        identities.append(method_identity(run))
    assert identities[0] == identities[2] != identities[1]
