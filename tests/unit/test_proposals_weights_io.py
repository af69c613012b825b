"""Weight files are read without running what is in them, and every refusal is one clear line."""

from __future__ import annotations

import argparse
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vidprune.errors import CheckpointError
from vidprune.weights_io import read_state_dict

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.tensor([1.0, -2.0])}


class _Touch:
    """Runs code when unpickled: the attack that must not succeed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.path),)


def _assert_same(found: dict[str, torch.Tensor]) -> None:
    assert found.keys() == WEIGHTS.keys()
    assert all(torch.equal(found[k], WEIGHTS[k]) for k in WEIGHTS)


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_torch_files(tmp_path: Path, zipped: bool) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    _assert_same(read_state_dict(tmp_path / "w.pth"))


@pytest.mark.parametrize("name", ["w.safetensors", "w.bin"])
def test_reads_safetensors_by_content(tmp_path: Path, name: str) -> None:
    save_file(WEIGHTS, tmp_path / name)
    _assert_same(read_state_dict(tmp_path / name))


def test_containers_and_training_arguments_are_left_to_the_caller(tmp_path: Path) -> None:
    torch.save({"model": WEIGHTS, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, tmp_path / "w.pth")
    found = read_state_dict(tmp_path / "w.pth")
    assert found["epoch"] == 3
    _assert_same(found["model"])


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_never_runs(tmp_path: Path, zipped: bool) -> None:
    target = tmp_path / "created"
    torch.save({"x": _Touch(target)}, tmp_path / "w.pth", _use_new_zipfile_serialization=zipped)
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"x": _Touch(target)}))
    for name, message in (("w.pth", "mkdir besides tensors"), ("plain.pkl", "not a weight file")):
        with pytest.raises(CheckpointError, match=message) as error:
            read_state_dict(tmp_path / name)
        assert len(str(error.value).splitlines()) == 1
        assert "weights_only" not in str(error.value)
        assert not target.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html>sign in</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"\x00\x01garbage" * 50, "not a weight file"),
        (b"PK\x03\x04" + b"\x00" * 100, "not a weight file"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{broken header", "safetensors"),
    ],
)
def test_bad_files_say_what_they_are(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as error:
        read_state_dict(path)
    assert str(path) in str(error.value)
    assert len(str(error.value).splitlines()) == 1


def test_cut_files_are_refused(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "w.pth")
    save_file(WEIGHTS, tmp_path / "w.safetensors")
    for name in ("w.pth", "w.safetensors"):
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
        with pytest.raises(CheckpointError):
            read_state_dict(tmp_path / name)


def test_absent_file_folder_and_bare_tensor(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weight file"):
        read_state_dict(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="is a folder"):
        read_state_dict(tmp_path)
    torch.save(torch.zeros(3), tmp_path / "tensor.pth")
    with pytest.raises(CheckpointError, match="holds a Tensor"):
        read_state_dict(tmp_path / "tensor.pth")
