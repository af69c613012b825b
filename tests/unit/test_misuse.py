"""What people pass by mistake is refused in one line that says what to pass."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import vidprune as vp
from vidprune.errors import VidpruneError


@pytest.fixture(scope="module")
def host() -> torch.nn.Module:
    return vp.create_model("videomae_tiny", num_classes=5)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("papr", "got 'papr'"),
        (vp.ToMe, "got ToMe itself; call it"),
        ({"name": "papr"}, "got {'name': 'papr'}"),
        (None, "got None"),
        ([vp.Random(0.5), "tome"], "got 'tome'"),
        ([], "at least one method"),
    ],
)
def test_what_is_no_method(host: torch.nn.Module, method: object, message: str) -> None:
    with pytest.raises(VidpruneError, match=r"PaPr\(keep_ratio=0\.45\)") as caught:
        vp.prune(host, method)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_methods_may_come_from_any_iterable(host: torch.nn.Module) -> None:
    assert [one.name for one in vp.prune(host, iter([vp.Random(0.5)])).methods] == ["random"]  # type: ignore[arg-type]


def test_pixels_of_the_wrong_kind(host: torch.nn.Module) -> None:
    pruned = vp.prune(host, vp.Random(0.5))
    pixels = torch.zeros(1, 3, 8, 112, 112)
    assert pruned(pixels).shape[0] == 1
    with pytest.raises(VidpruneError, match=r"float tensor of normalised pixels, got torch\.uint8 values"):
        pruned(pixels.to(torch.uint8))
    with pytest.raises(VidpruneError, match="float tensor of normalised pixels, got ndarray"):
        pruned(pixels.numpy())


def test_a_model_without_its_file() -> None:
    with pytest.raises(VidpruneError, match="must be a file or folder, got None; create_model gives random weights"):
        vp.load_model("videomae_tiny", None)  # type: ignore[arg-type]


def test_an_unknown_model_is_told_of_every_kind_of_name() -> None:
    with pytest.raises(VidpruneError, match=r"did you mean 'videomae_tiny'.*timm/NAME"):
        vp.create_model("videomae_tini")


@pytest.mark.parametrize("fields", [{"checkpoint": "mine.pth"}, {"num_classes": 24}])
def test_the_demo_takes_no_other_weights(fields: dict[str, object]) -> None:
    with pytest.raises(VidpruneError, match=r"weights and classes of its own.*videomae_tiny"):
        vp.ModelConfig("demo", **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(("names", "got"), [(("a", "b"), "got 2 names"), ("demo", "got 'demo'")])
def test_class_names_of_another_number(names: object, got: str) -> None:
    probs = np.full(4, 0.25, np.float32)
    with pytest.raises(VidpruneError, match=f"class_names must be 4 names, one per class, {got}"):
        vp.VideoPrediction("a.mp4", probs, probs[None], None, 8, class_names=names)  # type: ignore[arg-type]


BUILDERS: dict[str, Callable[[], object]] = {
    "percent": lambda: vp.PaPr(45),
    "text": lambda: vp.PaPr("0.45"),  # type: ignore[arg-type]
    "negative": lambda: vp.PaPr(-0.1),
    "nan": lambda: vp.PaPr(float("nan")),
}


@pytest.mark.parametrize("mistake", BUILDERS)
def test_keep_ratios_that_are_none(mistake: str) -> None:
    with pytest.raises(VidpruneError, match=r"must be a number in \(0, 1\], got .*; 1 keeps every token"):
        BUILDERS[mistake]()
