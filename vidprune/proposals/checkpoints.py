"""Weights of the video networks: pytorchvideo's `.pyth`, mmaction's ports, our own files; every key accounted for."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from vidprune.errors import CheckpointError
from vidprune.weights_io import plain_weights, read_state_dict

_CONTAINERS = ("model_state", "state_dict", "model")

# What comes after the features, and nothing else, may be left unread.
_AFTER_FEATURES = re.compile(r"blocks\.5\.(proj|pool\.post_conv|pool\.post_norm)\.|cls_head\.|data_preprocessor\.")

# What wrappers put before the names: data-parallel training, our training script, a saved proposal.
_WRAPPERS = ("module.", "net.", "features.")

_SHORTCUT_NORM = "blocks.1.res_blocks.0.branch1_norm."


def load_features(features: nn.Module, path: str | Path, name: str) -> str:
    """Fill `features` (pytorchvideo's names, no head) from the weight file at `path`.

    Args:
        features: the network, changed in place.
        path: a `.pyth` of pytorchvideo, a `.pth` of mmaction or a file of ours.
        name: the proposal's name, for messages.

    Returns:
        The layout found: "pytorchvideo" or "mmaction".

    Raises:
        CheckpointError: for a file in neither layout, and for keys that are missing, left over or of another shape.
    """
    weights = _unwrap(read_state_dict(path), path)
    layout, weights = _to_pytorchvideo(weights, path)
    weights = {key: value for key, value in weights.items() if not _AFTER_FEATURES.match(key)}
    _fit_shortcut_norm(features, weights)
    _refuse_differences(features.state_dict(), weights, path, name)
    features.load_state_dict(weights, strict=False)  # strict but for the counters of batches, checked just above
    return layout


def _unwrap(content: dict[str, object], path: str | Path) -> dict[str, Tensor]:
    for container in _CONTAINERS:
        inner = content.get(container)
        if isinstance(inner, dict):
            content = inner
            break
    weights = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise CheckpointError(f"{path} holds no weights under {', '.join(_CONTAINERS)} or at its top: {_some(content)}")
    return plain_weights(weights, path)


def _to_pytorchvideo(weights: dict[str, Tensor], path: str | Path) -> tuple[str, dict[str, Tensor]]:
    """The layout, and the weights under pytorchvideo's names; a key that no rule knows keeps its own, to be refused."""
    for wrapper in _WRAPPERS:
        weights = {key.removeprefix(wrapper): value for key, value in weights.items()}
    if any(key.startswith("blocks.0.") for key in weights):
        return "pytorchvideo", weights
    stripped = {key.removeprefix("backbone."): value for key, value in weights.items()}
    if not any(key.startswith("layer1.0.conv1.conv.") for key in stripped):
        raise CheckpointError(
            f"{path} is in no known layout: its keys are {_some(weights)}; allowed are pytorchvideo's ('blocks.0...') "
            "and mmaction's ('backbone.layer1.0.conv1.conv...')"
        )
    is_x3d = any(key.startswith("conv1_s.") for key in stripped)
    return "mmaction", {_pytorchvideo_name(key, is_x3d): value for key, value in stripped.items()}


def _pytorchvideo_name(key: str, is_x3d: bool) -> str:
    """mmaction's name of a weight -> pytorchvideo's; mmaction's ConvModule holds a `conv` and a `bn`."""
    for old, new in _X3D_STEM_AND_HEAD if is_x3d else _SLOWONLY_STEM:
        if key.startswith(old):
            return new + key.removeprefix(old)
    match = re.fullmatch(r"layer(\d)\.(\d+)\.(\w+)\.(\w+)\.(\w+)", key)
    part = match and _BLOCK_PARTS.get((match[3], match[4]))
    if not match or not part:
        return key
    if is_x3d and part == "branch2.norm_b":
        part = "branch2.norm_b.0"  # X3D's second norm shares a sequence with the squeeze-excitation
    return f"blocks.{match[1]}.res_blocks.{match[2]}.{part}.{match[5]}"


# pytorchvideo's X3D stem names its spatial convolution conv_t and its temporal one conv_xy.
_X3D_STEM_AND_HEAD = (
    ("conv1_s.conv.", "blocks.0.conv.conv_t."),
    ("conv1_t.conv.", "blocks.0.conv.conv_xy."),
    ("conv1_t.bn.", "blocks.0.norm."),
    ("conv5.conv.", "blocks.5.pool.pre_conv."),
    ("conv5.bn.", "blocks.5.pool.pre_norm."),
)
_SLOWONLY_STEM = (("conv1.conv.", "blocks.0.conv."), ("conv1.bn.", "blocks.0.norm."))
_BLOCK_PARTS = {
    ("conv1", "conv"): "branch2.conv_a",
    ("conv1", "bn"): "branch2.norm_a",
    ("conv2", "conv"): "branch2.conv_b",
    ("conv2", "bn"): "branch2.norm_b",
    ("conv3", "conv"): "branch2.conv_c",
    ("conv3", "bn"): "branch2.norm_c",
    ("downsample", "conv"): "branch1_conv",
    ("downsample", "bn"): "branch1_norm",
    ("se_module", "fc1"): "branch2.norm_b.1.block.0",
    ("se_module", "fc2"): "branch2.norm_b.1.block.2",
}


def _fit_shortcut_norm(features: nn.Module, weights: dict[str, Tensor]) -> None:
    """Give X3D's first shortcut its batch norm where the weights have one.

    X3D's first stage halves the side at equal width. mmaction (as PySlowFast) normalises that shortcut; pytorchvideo
    does so only where the width changes. Without this, a port's first stage would add an unnormalised shortcut.
    """
    block = features.get_submodule("blocks.1.res_blocks.0")
    if any(key.startswith(_SHORTCUT_NORM) for key in weights) and block.branch1_norm is None:
        block.branch1_norm = nn.BatchNorm3d(block.branch1_conv.out_channels).eval().requires_grad_(False)


def _refuse_differences(wanted: dict[str, Tensor], got: dict[str, Tensor], path: str | Path, name: str) -> None:
    # Files from before batch norms counted their batches lack the counters, which inference does not use.
    missing = [key for key in wanted if key not in got and not key.endswith("num_batches_tracked")]
    left_over = [key for key in got if key not in wanted]
    resized = [
        f"{key} {list(got[key].shape)} instead of {list(wanted[key].shape)}"
        for key in wanted
        if key in got and got[key].shape != wanted[key].shape
    ]
    whole = [key for key in wanted if key in got and wanted[key].is_floating_point() > got[key].is_floating_point()]
    faults = [
        f"{len(keys)} {word}: {_some(keys)}"
        for word, keys in (
            ("missing", missing),
            ("not known", left_over),
            ("of another shape", resized),
            ("whole numbers", whole),
        )
        if keys
    ]
    if faults:
        raise CheckpointError(f"{path} does not fit {name}: {'; '.join(faults)}")


def _some(keys: Iterable[str], limit: int = 8) -> str:
    keys = list(keys)
    return ", ".join(keys[:limit]) + (f" and {len(keys) - limit} more" if len(keys) > limit else "")
