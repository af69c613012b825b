"""The naming schemes in which VideoMAE weights are published, each translated to ours by one pure function.

Ours are timm's: `patch_embed.proj`, `blocks.N.{norm1,attn.qkv,attn.proj,norm2,mlp.fc1,mlp.fc2}`, `fc_norm`, `head`,
with one fused query-key-value bias. VideoMAE trains a query and a value bias only: they become [q_bias, 0, v_bias].
Losing these two is the classic silent failure of ports, so a name that no rule knows stays in the result as it is,
and loading refuses every name left over or missing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vidprune.errors import CheckpointError, unknown_name
from vidprune.models.checkpoint_files import StateDict, name_some

_WRAPPER_PREFIXES = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, a wrapping module

_MMACTION_NAMES = {
    r"^patch_embed\.projection\.": "patch_embed.proj.",
    r"\.mlp\.layers\.0\.0\.": ".mlp.fc1.",
    r"\.mlp\.layers\.1\.": ".mlp.fc2.",
    r"^fc_cls\.": "head.",
}

_HUGGINGFACE_NAMES = {
    r"^embeddings\.patch_embeddings\.projection\.": "patch_embed.proj.",
    r"^embeddings\.position_embeddings$": "pos_embed",
    r"^encoder\.layer\.": "blocks.",
    r"\.layernorm_before\.": ".norm1.",
    r"\.layernorm_after\.": ".norm2.",
    r"\.attention\.attention\.query\.bias$": ".attn.q_bias",  # transformers 5; before, the name was q_bias
    r"\.attention\.attention\.key\.bias$": ".attn.k_bias",
    r"\.attention\.attention\.value\.bias$": ".attn.v_bias",
    r"\.attention\.attention\.": ".attn.",
    r"\.attention\.output\.dense\.": ".attn.proj.",
    r"\.intermediate\.dense\.": ".mlp.fc1.",
    r"\.output\.dense\.": ".mlp.fc2.",
    r"^classifier\.": "head.",
}


def from_native(state: Mapping[str, Tensor]) -> StateDict:
    """Ours: already in place, but for the prefixes of wrapping modules."""
    return _rename(state, _WRAPPER_PREFIXES)


def from_official(state: Mapping[str, Tensor]) -> StateDict:
    """VideoMAE and VideoMAE V2 as their authors publish them: separate `q_bias` and `v_bias` beside `qkv.weight`."""
    return _fuse_qkv(_rename(state, (*_WRAPPER_PREFIXES, "backbone.", "encoder.")))


def from_mmaction(state: Mapping[str, Tensor]) -> StateDict:
    """mmaction2's ports: `backbone.` and `cls_head.`, mmcv's names for the patch embedding and the MLP."""
    kept = {name: value for name, value in state.items() if not name.startswith("data_preprocessor.")}
    return _fuse_qkv(_rename(kept, (*_WRAPPER_PREFIXES, "backbone.", "cls_head."), _MMACTION_NAMES))


def from_huggingface(state: Mapping[str, Tensor]) -> StateDict:
    """transformers' `VideoMAEForVideoClassification`, with the bias names of version 4 and of version 5."""
    return _fuse_qkv(_rename(state, (*_WRAPPER_PREFIXES, "videomae."), _HUGGINGFACE_NAMES))


LAYOUTS: dict[str, Callable[[Mapping[str, Tensor]], StateDict]] = {
    "native": from_native,
    "official": from_official,
    "mmaction": from_mmaction,
    "huggingface": from_huggingface,
}


def translate(state: Mapping[str, Tensor], layout: str = "auto") -> StateDict:
    """The state dict under our names; `layout` is a key of `LAYOUTS`, or "auto" to tell it from the names.

    Raises:
        CheckpointError: a pre-training checkpoint, or no VideoMAE at all.
        UnknownNameError: an unknown layout.
    """
    refuse_pretraining(state)
    layout = detect_layout(state) if layout == "auto" else layout
    if layout not in LAYOUTS:
        raise unknown_name("checkpoint layout", layout, ["auto", *LAYOUTS])
    return LAYOUTS[layout](state)


def detect_layout(names: Iterable[str]) -> str:
    """Which of `LAYOUTS` uses these parameter names. Raises `CheckpointError` if none does."""
    names = list(names)
    if any("embeddings.patch_embeddings.projection." in name for name in names):
        return "huggingface"
    if any("patch_embed.projection." in name for name in names):
        return "mmaction"
    if any(name.endswith("patch_embed.proj.weight") for name in names):
        return "native" if any(name.endswith(".attn.qkv.bias") for name in names) else "official"
    raise CheckpointError(f"no VideoMAE checkpoint: no patch embedding among its names {name_some(names, 4)}")


def refuse_pretraining(names: Iterable[str]) -> None:
    """Raise `CheckpointError` if the names hold the decoder of masked pre-training."""
    marks = [name for name in names if re.search(r"(^|\.)(mask_token$|encoder_to_decoder\.|decoder\.)", name)]
    if marks:
        raise CheckpointError(
            f"a pre-training checkpoint (it holds {name_some(marks, 2)}) has a decoder and no classifier: "
            "give the checkpoint fine-tuned from it"
        )


@dataclass(frozen=True)
class FoundSize:
    """What the tensors of a translated state dict say about the model. `tubelet` is (frames, height, width)."""

    width: int
    depth: int
    mlp_width: int
    tubelet: tuple[int, ...]
    num_classes: int

    def __str__(self) -> str:
        return (
            f"width {self.width}, {self.depth} blocks, MLP {self.mlp_width}, tubelet {'x'.join(map(str, self.tubelet))}"
        )


def find_size(state: Mapping[str, Tensor]) -> FoundSize:
    """Read the architecture off a translated state dict. Raises `CheckpointError` where that cannot be done."""
    patch = state.get("patch_embed.proj.weight")
    if patch is None:
        raise CheckpointError(f"no patch_embed.proj.weight among its names {name_some(list(state), 4)}")
    if patch.ndim != 5:
        raise CheckpointError(
            f"the patch embedding has shape {list(patch.shape)}, a tubelet embedding has 5 axes: this is an image model"
        )
    depth = 1 + max((int(name.split(".")[1]) for name in state if re.match(r"blocks\.\d+\.", name)), default=-1)
    head, hidden = state.get("head.weight"), state.get("blocks.0.mlp.fc1.weight")
    if head is None:
        raise CheckpointError(
            "no classification head: this is an encoder alone, give the checkpoint fine-tuned from it"
        )
    for name, weight in (("head.weight", head), ("blocks.0.mlp.fc1.weight", hidden)):
        if weight is not None and weight.ndim != 2:
            raise CheckpointError(f"{name} has shape {list(weight.shape)}, a linear layer's weight has 2 axes")
    return FoundSize(
        width=patch.shape[0],
        depth=depth,
        mlp_width=0 if hidden is None else hidden.shape[0],
        tubelet=tuple(patch.shape[2:]),
        num_classes=head.shape[0],
    )


def _rename(
    state: Mapping[str, Tensor], prefixes: tuple[str, ...], renames: Mapping[str, str] | None = None
) -> StateDict:
    """Strip leading prefixes, then apply every pattern. One tensor stored under two names passes only if both agree."""
    renamed: StateDict = {}
    for source, value in state.items():
        name = source
        while prefix := next((p for p in prefixes if name.startswith(p)), ""):
            name = name[len(prefix) :]
        for pattern, replacement in (renames or {}).items():
            name = re.sub(pattern, replacement, name)
        if name in renamed and not torch.equal(renamed[name], value):
            raise CheckpointError(f"two different tensors claim to be {name} (the second is called {source})")
        renamed[name] = value
    return renamed


def _fuse_qkv(state: StateDict) -> StateDict:
    """Join separate query, key and value parts per block; a set with a part missing is left, to be refused by name."""
    fused = dict(state)
    for block in sorted({match[1] for name in state if (match := re.match(r"(blocks\.\d+\.attn\.)", name))}):
        parts = [f"{block}{part}.weight" for part in ("query", "key", "value")]
        if all(part in fused for part in parts):
            fused[f"{block}qkv.weight"] = torch.cat([fused.pop(part) for part in parts])  # [3D, D]
        if f"{block}q_bias" in fused and f"{block}v_bias" in fused:
            q_bias, v_bias = fused.pop(f"{block}q_bias"), fused.pop(f"{block}v_bias")
            k_bias = fused.pop(f"{block}k_bias", torch.zeros_like(q_bias))
            fused[f"{block}qkv.bias"] = torch.cat([q_bias, k_bias, v_bias])  # [3D]
    return fused
