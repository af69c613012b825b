"""Weight files that mislead: nothing in them runs, none hangs, and each is one clear error line."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vidprune.config import demo_file
from vidprune.errors import CheckpointError
from vidprune.models import load_model
from vidprune.proposals import create_proposal

NAN, INF = float("nan"), float("inf")


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return load_file(demo_file("videomae_tiny.safetensors"))


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("pwned",)


def in_itself(state: dict[str, Any]) -> dict[str, Any]:
    state["model"] = state
    return state


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "code": (lambda s: {"model": s, "args": Bomb()}, "holds posix.mkdir besides tensors"),
    "holds itself": (lambda s: in_itself({}), "not tensors are model"),
    "dict of dicts": (lambda s: {"model": {"net": {"a": s}}}, "not tensors are net"),
    "numbered": (lambda s: {0: torch.zeros(2)}, "names a tensor 0"),
    "nan": (lambda s: s | {"head.bias": s["head.bias"] * NAN}, "not finite, 1 tensors of 54, first head.bias"),
    "too large for float32": (lambda s: s | {"head.bias": s["head.bias"].double() + 1e300}, "not finite"),
    "whole numbers": (lambda s: s | {"head.bias": s["head.bias"].int()}, "whole numbers stand in .*: head.bias"),
    "complex": (lambda s: s | {"head.bias": s["head.bias"] * 1j}, "head.bias is of type torch.complex64"),
    "sparse": (lambda s: s | {"head.weight": s["head.weight"].to_sparse()}, "head.weight is stored as"),
    "shapes alone": (lambda s: s | {"head.bias": s["head.bias"].to("meta")}, "head.bias is a shape without numbers"),
    "huge from nothing": (
        lambda s: s | {"head.weight": torch.zeros(1, dtype=torch.half).expand(10**7, 10**6)},
        r"shapes do not fit the model: head.weight \[10000000, 1000000\]",
    ),
    "huge from overlaps": (
        lambda s: s | {"head.bias": torch.zeros(2000, dtype=torch.half).as_strided((1000, 1000), (1, 1))},
        r"head.bias is of shape \[1000, 1000\] over 4000 bytes",
    ),
    "a scalar head": (lambda s: s | {"head.weight": torch.tensor(1.0)}, r"head.weight has shape \[\]"),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_a_misleading_checkpoint_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, torch.Tensor], kind: str
) -> None:
    monkeypatch.chdir(tmp_path)
    change, line = CHANGES[kind]
    path = tmp_path / "weights.pth"
    torch.save(change(dict(weights)), path)
    with pytest.raises(CheckpointError, match=line) as caught:
        load_model("auto", path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "pwned").exists()


def test_a_misleading_checkpoint_of_a_proposal_is_one_clear_error(tmp_path: Path) -> None:
    weights = load_file(demo_file("x3d_tiny.safetensors"))
    name = "blocks.0.conv.conv_t.weight" if "blocks.0.conv.conv_t.weight" in weights else next(iter(weights))
    for value, line in ((weights[name] * INF, "not finite"), (weights[name].int(), "1 whole numbers")):
        torch.save(weights | {name: value}, tmp_path / "x3d.pth")
        with pytest.raises(CheckpointError, match=line):
            create_proposal("x3d_tiny", checkpoint=str(tmp_path / "x3d.pth"))


def test_files_that_torch_or_the_system_refuse(tmp_path: Path) -> None:
    (tmp_path / "cut.safetensors").write_bytes(b"abc")  # torch.load goes by this suffix, and raises what it likes
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is damaged"):
        load_model("auto", tmp_path / "cut.safetensors")
    (tmp_path / "deep.json").write_text('{"weight_map": ' + "[" * 100_000)
    with pytest.raises(CheckpointError, match="no index of shards"):
        load_model("auto", tmp_path / "deep.json")
    with pytest.raises(CheckpointError, match="no weight file at"):
        load_model("auto", tmp_path / ("x" * 300))
