"""VideoMAE of transformers with random weights, and its weights in every published layout and kind of file.

Each layout is written from the modules of the model, by a mapping of its own.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vidprune.models import VideoMAESpec


def make_huggingface(spec: VideoMAESpec, num_classes: int, **config: Any) -> Any:
    """transformers' model with random weights, every bias away from zero, and the original's LayerNorm eps."""
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    settings = {
        "hidden_size": spec.width,
        "num_hidden_layers": spec.depth,
        "num_attention_heads": spec.num_heads,
        "intermediate_size": 4 * spec.width,
        "num_frames": spec.num_frames,
        "image_size": spec.image_size,
        "layer_norm_eps": 1e-6,
        "num_labels": num_classes,
    }
    model = VideoMAEForVideoClassification(VideoMAEConfig(**{**settings, **config})).eval()
    model.fc_norm.eps = 1e-6  # transformers leaves torch's 1e-5 here, whatever the config says
    generator = torch.Generator().manual_seed(spec.width)
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            parameter.normal_(0.0, 0.04 if parameter.ndim > 1 else 0.3, generator=generator)
            if "norm" in name and name.endswith("weight"):
                parameter.add_(1.0)
    return model.requires_grad_(False)


def block_parts(layer: nn.Module) -> dict[str, nn.Module]:
    """A transformers block's modules under short names, all that the mappings below need to know about it."""
    layer: Any = layer
    return {
        "q": layer.attention.attention.query,
        "k": layer.attention.attention.key,
        "v": layer.attention.attention.value,
        "proj": layer.attention.output.dense,
        "up": layer.intermediate.dense,
        "down": layer.output.dense,
        "before": layer.layernorm_before,
        "after": layer.layernorm_after,
    }


def put(state: dict[str, Tensor], name: str, module: Any) -> None:
    state[f"{name}.weight"], state[f"{name}.bias"] = module.weight.detach(), module.bias.detach()


def official(model: Any) -> dict[str, Tensor]:
    """The names that VideoMAE's authors publish."""
    state: dict[str, Tensor] = {}
    put(state, "patch_embed.proj", model.videomae.embeddings.patch_embeddings.projection)
    for i, layer in enumerate(model.videomae.encoder.layer):
        part: Any = block_parts(layer)
        put(state, f"blocks.{i}.norm1", part["before"])
        state[f"blocks.{i}.attn.q_bias"] = part["q"].bias
        state[f"blocks.{i}.attn.v_bias"] = part["v"].bias
        state[f"blocks.{i}.attn.qkv.weight"] = torch.cat([part[p].weight for p in "qkv"])
        put(state, f"blocks.{i}.attn.proj", part["proj"])
        put(state, f"blocks.{i}.norm2", part["after"])
        put(state, f"blocks.{i}.mlp.fc1", part["up"])
        put(state, f"blocks.{i}.mlp.fc2", part["down"])
    put(state, "fc_norm", model.fc_norm)
    put(state, "head", model.classifier)
    return state


def mmaction(model: Any) -> dict[str, Tensor]:
    """mmaction2: its `VisionTransformer` stores the position table, and mmcv names the embedding and the MLP."""
    state: dict[str, Tensor] = {"backbone.pos_embed": model.videomae.embeddings.position_embeddings.clone()}
    put(state, "backbone.patch_embed.projection", model.videomae.embeddings.patch_embeddings.projection)
    for i, layer in enumerate(model.videomae.encoder.layer):
        part: Any = block_parts(layer)
        block = f"backbone.blocks.{i}"
        put(state, f"{block}.norm1", part["before"])
        state[f"{block}.attn.q_bias"], state[f"{block}.attn.v_bias"] = part["q"].bias, part["v"].bias
        state[f"{block}.attn.qkv.weight"] = torch.cat([part[p].weight for p in "qkv"])
        put(state, f"{block}.attn.proj", part["proj"])
        put(state, f"{block}.norm2", part["after"])
        put(state, f"{block}.mlp.layers.0.0", part["up"])
        put(state, f"{block}.mlp.layers.1", part["down"])
    put(state, "backbone.fc_norm", model.fc_norm)
    put(state, "cls_head.fc_cls", model.classifier)
    return state


def huggingface_old(model: Any) -> dict[str, Tensor]:
    """transformers 4: biases beside, not inside, the query and value layers."""
    state = dict(model.state_dict())
    for i in range(len(model.videomae.encoder.layer)):
        attention = f"videomae.encoder.layer.{i}.attention.attention"
        state[f"{attention}.q_bias"] = state.pop(f"{attention}.query.bias")
        state[f"{attention}.v_bias"] = state.pop(f"{attention}.value.bias")
    return state


def native(model: Any) -> dict[str, Tensor]:
    """Ours: timm's names, one fused bias whose key part is zero."""
    state = official(model)
    for i, layer in enumerate(model.videomae.encoder.layer):
        q_bias, v_bias = state.pop(f"blocks.{i}.attn.q_bias"), state.pop(f"blocks.{i}.attn.v_bias")
        state[f"blocks.{i}.attn.qkv.bias"] = torch.cat([q_bias, torch.zeros(len(q_bias)), v_bias])
        assert layer.attention.attention.key.bias is None
    return state


STATES: dict[str, Callable[[Any], dict[str, Tensor]]] = {
    "native": native,
    "official": official,
    "official_backbone": lambda model: {f"backbone.{name}": value for name, value in official(model).items()},
    "official_ddp_encoder": lambda model: {
        f"module.{name}" if name.startswith("head") else f"module.encoder.{name}": value
        for name, value in official(model).items()
    },
    "mmaction": mmaction,
    "huggingface_4": huggingface_old,
    "huggingface_5": lambda model: dict(model.state_dict()),
}
LAYOUT_NAMES = {"official_backbone": "official", "official_ddp_encoder": "official"} | {
    "huggingface_4": "huggingface",
    "huggingface_5": "huggingface",
}


def clone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.clone().contiguous() for name, value in state.items()}


def save_index(folder: Path, state: dict[str, Tensor], suffix: str) -> None:
    """Two shards and their index, as transformers names them."""
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    names = sorted(state)
    weight_map = {}
    for number, part in enumerate((names[::2], names[1::2]), start=1):
        shard = f"{stem}-0000{number}-of-00002.{suffix}"
        weight_map |= dict.fromkeys(part, shard)
        content = clone({name: state[name] for name in part})
        save_file(content, folder / shard) if suffix == "safetensors" else torch.save(content, folder / shard)
    (folder / f"{stem}.{suffix}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def write_safetensors(name: str) -> Callable[[Any, Path], Path]:
    def write(model: Any, folder: Path) -> Path:
        save_file(clone(STATES[name](model)), folder / "weights.bin")  # a misleading name on purpose
        return folder / "weights.bin"

    return write


def write_torch(name: str, wrap: Callable[[dict[str, Tensor]], Any], **settings: Any) -> Callable[[Any, Path], Path]:
    def write(model: Any, folder: Path) -> Path:
        torch.save(wrap(clone(STATES[name](model))), folder / "checkpoint.pth", **settings)
        return folder / "checkpoint.pth"

    return write


def write_folder(name: str, filename: str) -> Callable[[Any, Path], Path]:
    def write(model: Any, folder: Path) -> Path:
        model.config.save_pretrained(folder)
        state = clone(STATES[name](model))
        save_file(state, folder / filename) if filename.endswith("safetensors") else torch.save(
            state, folder / filename
        )
        return folder

    return write


def write_shards(name: str, suffix: str, give_index: bool = False) -> Callable[[Any, Path], Path]:
    def write(model: Any, folder: Path) -> Path:
        save_index(folder, STATES[name](model), suffix)
        return next(folder.glob("*.index.json")) if give_index else folder

    return write


def write_pretrained(**settings: Any) -> Callable[[Any, Path], Path]:
    def write(model: Any, folder: Path) -> Path:
        model.save_pretrained(folder, **settings)
        return folder

    return write


FILES: dict[str, Callable[[Any, Path], Path]] = {
    "native safetensors": write_safetensors("native"),
    "native torch, bare": write_torch("native", lambda state: state),
    "official, bare": write_torch("official", lambda state: state),
    "official under model, training state beside": write_torch(
        "official",
        lambda state: {
            "model": state,
            "model_ema": {name: torch.zeros_like(value) for name, value in state.items()},
            "optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 1e-3}]},
            "epoch": 74,
            "args": argparse.Namespace(model="vit_base_patch16_224", lr=1e-3),
        },
    ),
    "official under module (V2 and DeepSpeed)": write_torch(
        "official", lambda state: {"module": state, "skipped": set()}
    ),
    "official, before torch 1.6": write_torch("official", lambda s: {"model": s}, _use_new_zipfile_serialization=False),
    "official, backbone prefix": write_torch("official_backbone", lambda state: {"model": state}),
    "official, DDP and encoder prefix": write_torch("official_ddp_encoder", lambda state: {"module": state}),
    "mmaction": write_torch("mmaction", lambda state: {"meta": {"epoch": 1}, "state_dict": state}),
    "huggingface 4 folder, safetensors": write_folder("huggingface_4", "model.safetensors"),
    "huggingface 4 folder, bin": write_folder("huggingface_4", "pytorch_model.bin"),
    "huggingface 5 folder, safetensors": write_folder("huggingface_5", "model.safetensors"),
    "huggingface 5 folder, bin": write_folder("huggingface_5", "pytorch_model.bin"),
    "huggingface 4 shards, safetensors": write_shards("huggingface_4", "safetensors"),
    "huggingface 5 shards, bin, by index": write_shards("huggingface_5", "bin", give_index=True),
    "huggingface file alone": write_safetensors("huggingface_4"),
    "huggingface save_pretrained": write_pretrained(),
    "huggingface save_pretrained, shards": write_pretrained(max_shard_size="8MB"),
}
