"""One-step pruning of hosts with stages, ConvNeXt and Swin: pointwise layers run on the kept pixels alone.

Convolutions and window attention need the whole grid, so no pixel can leave it. But most of the work is pointwise
(ConvNeXt-B 96 %, Swin-B 64 %), and that is done for the kept pixels only: they are gathered, worked on and put back.

Source: PaPr (ECCV 2024), section 3.4. Its zero padding is read as its release does: a ConvNeXt block zeroes a dropped
pixel altogether, a Swin block drops the pixel's MLP branch and keeps its residual stream.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from vidprune.errors import ConfigError, UnsupportedModelError
from vidprune.hierarchical.families import FAMILIES
from vidprune.hierarchical.model import PrunedHierarchical, StageTrace, image_size
from vidprune.pruners.base import Pruner
from vidprune.pruners.stage_options import StageOptions
from vidprune.tokens.pixels import KeptPixels
from vidprune.types import TokenGrid

__all__ = ["PrunedHierarchical", "StageTrace", "has_stages", "image_size", "prune_stages", "refuse_stage_options"]


def has_stages(model: nn.Module) -> bool:
    """Whether `model` is a ConvNeXt or Swin of timm, pruned or not."""
    return isinstance(model, (PrunedHierarchical, *(family.family[0] for family in FAMILIES)))


def prune_stages(host: nn.Module, methods: Sequence[Pruner], *, self_check: bool = True) -> PrunedHierarchical:
    """Wrap a timm ConvNeXt or Swin; what `vidprune.prune` does for such a host.

    Args:
        methods: exactly one, which scores places once: `PaPr`, `Random`, `Uniform` or `Centre`.
        self_check: compare the last block of each stage, all pixels kept, with its own output on a random feature map.

    Raises:
        UnsupportedModelError: for a pruned model, or one whose forward is not timm's.
        ConfigError: for several methods, or one that needs a ViT.
    """
    if isinstance(host, PrunedHierarchical):
        raise UnsupportedModelError("this model is already pruned; prune its .host instead")
    family = next(family for family in FAMILIES if isinstance(host, family.family[0]))
    if len(methods) != 1:
        names = ", ".join(method.name for method in methods)
        raise ConfigError(f"a {type(host).__name__} takes one method, such as PaPr(keep_ratio=0.65), got {names}")
    _check_forward((host,), family.family[0])
    pruned = family(host, methods[0])
    _check_forward(pruned.stages, family.family[1])
    for stage, grid in zip(pruned.stages, pruned.grids, strict=True):
        _check_forward(stage.blocks, family.family[2])
        if self_check and not next(host.parameters()).is_meta:
            _check_block(pruned, stage.blocks[-1], grid)  # Swin's last block is one that shifts its windows
    return pruned


def refuse_stage_options(methods: Sequence[Pruner]) -> None:
    """Raise `ConfigError` where a method for a ViT names stages, which a ViT does not have."""
    for method in methods:
        if isinstance(method, StageOptions) and (method.stages is not None or method.keep_shortcut):
            raise ConfigError(f"{method.name}: stages and keep_shortcut are for ConvNeXt and Swin; a ViT has no stages")


def _check_forward(modules: Iterable[nn.Module], expected: type[nn.Module]) -> None:
    for module in modules:
        changed = [
            name
            for name in ("forward", "forward_features", "forward_head")
            if getattr(type(module), name, None) is not getattr(expected, name, None)
        ]
        if not isinstance(module, expected) or changed:
            raise UnsupportedModelError(
                f"{type(module).__name__} is not timm's {expected.__name__} or changes its forward, so it cannot be "
                f"pruned: use a plain timm ConvNeXt, ConvNeXt V2, Swin or Swin V2"
            )


def _check_block(pruned: PrunedHierarchical, block: nn.Module, grid: TokenGrid) -> None:
    """Raise unless `block`, all pixels kept, equals its own output on a random feature map."""
    parameter = next(block.parameters())
    x = pruned.random_map(block, grid)
    everything = KeptPixels.of(torch.arange(grid.num_tokens, device=x.device).unsqueeze(0), grid.num_tokens)
    with torch.no_grad(), torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
        torch.manual_seed(0)  # a block in training mode drops the same entries in both runs
        expected = block(x)
        torch.manual_seed(0)
        gap = float((pruned.run_block(block, x, everything) - expected).abs().max() / expected.abs().max())
    if not gap <= (1e-5 if parameter.dtype in (torch.float32, torch.float64) else 1e-2):
        raise UnsupportedModelError(
            f"{type(block).__name__} computes more than its parts say: outputs differ by {gap:.2g} of their size "
            f"(torch {torch.__version__}); this version of timm is not supported"
        )
