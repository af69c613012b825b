"""Whether a host is what it seems: its forward, and each block's, compared with the same run from its parts."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from vidprune.compat import ensure_torchvision
from vidprune.errors import UnsupportedModelError
from vidprune.pruners.block_parts import composition_gap

ensure_torchvision()
import timm  # noqa: E402  (the guard above must come first)
from timm.models.vision_transformer import VisionTransformer  # noqa: E402


def check_block(host: VisionTransformer, index: int) -> None:
    """Raise `UnsupportedModelError` unless block `index`, run from its parts, equals itself on random tokens."""
    parameter = next(host.parameters())
    if parameter.is_meta:
        return
    generator = torch.Generator().manual_seed(index)
    tokens = torch.randn(1, 8, host.embed_dim, generator=generator).to(parameter.device, parameter.dtype)
    gap = composition_gap(host.blocks[index], tokens)
    if not gap <= (1e-5 if parameter.dtype in (torch.float32, torch.float64) else 1e-2):
        raise UnsupportedModelError(
            f"block {index} of {type(host).__name__} computes more than its parts say: outputs differ by {gap:.2g} of "
            f"their size (timm {timm.__version__}, torch {torch.__version__}); use a method before the blocks"
        )


def check_composition(
    host: VisionTransformer, shape: Sequence[int], compose: Callable[[VisionTransformer], nn.Module]
) -> None:
    """Raise `UnsupportedModelError` unless embed, blocks, norm and head, composed, equal the host bit for bit.

    Args:
        shape: of one input of the host.
        compose: wraps a host so that it runs from its parts, everything kept.
    """
    probe = copy.copy(host)  # shares every weight; only the list of blocks differs, so the check costs two blocks
    probe._modules = dict(host._modules)
    blocks = host.blocks
    probe.blocks = nn.Sequential(blocks[0], blocks[-1]) if len(blocks) > 1 else nn.Sequential(*blocks)
    parameter = next(host.parameters())
    if parameter.is_meta:
        return
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(tuple(shape), generator=generator).to(parameter.device, parameter.dtype)
    composed_model = compose(probe)

    def run(model: nn.Module) -> Tensor:
        devices = [parameter.device] if parameter.is_cuda else []
        with torch.no_grad(), torch.random.fork_rng(devices=devices):
            torch.manual_seed(0)  # a host in training mode drops the same entries in both runs
            return model(pixels)

    expected, composed = run(probe), run(composed_model)
    if not torch.equal(expected, composed):
        gap = (expected - composed).abs().max().item()
        raise UnsupportedModelError(
            f"{type(host).__name__} does more in its forward than embed, blocks, norm and head, so it cannot be "
            f"pruned: logits differ by {gap:.2g}, all tokens kept (timm {timm.__version__}, torch {torch.__version__})"
        )
