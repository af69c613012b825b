"""Embed the kept patches alone: where the choice needs no tokens, projecting the others would be work for nothing.

A patch embedding is a convolution whose kernels do not overlap, hence one matrix product per patch: gathering the
pixels of the kept patches first and projecting those gives the same tokens, up to rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vidprune.compat import ensure_torchvision
from vidprune.models.videomae import TubeletEmbed, VideoMAE

ensure_torchvision()
from timm.layers import PatchEmbed  # noqa: E402  (the guard above must come first)
from timm.models.deit import VisionTransformerDistilled  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

# Hosts whose `_pos_embed` is known to add a table and put prefix tokens in front, and to do nothing else.
_HOSTS = (VideoMAE, VisionTransformer, VisionTransformerDistilled)


def can_embed_kept(host: VisionTransformer) -> bool:
    """Whether `embed_kept` gives the host's own tokens: a plain patch or tubelet embedding of one size, no overlap."""
    embed = host.patch_embed
    if type(host) not in _HOSTS or type(embed) not in (TubeletEmbed, PatchEmbed) or host.dynamic_img_size:
        return False
    if isinstance(embed, PatchEmbed) and (not embed.flatten or embed.dynamic_img_pad):
        return False
    projection = embed.proj
    return (
        type(projection) in (nn.Conv2d, nn.Conv3d)
        and projection.kernel_size == projection.stride
        and not any(projection.padding)
        and projection.groups == 1
        and set(projection.dilation) == {1}
        and isinstance(host.patch_drop, nn.Identity)
    )


def embed_kept(host: VisionTransformer, pixels: Tensor, kept_index: Tensor) -> Tensor:
    """The host's embedded tokens, positions and prefix included, of the patches in `kept_index` alone.

    Args:
        host: one for which `can_embed_kept` holds, in eval mode.
        pixels: [B, 3, T, H, W] or [B, 3, H, W], of the host's own size.
        kept_index: int64 [B, K], places in the token grid.

    Returns:
        [B, P + K, D], prefix tokens first, as they enter the first block.
    """
    embed = host.patch_embed
    patches = take_patches(pixels, kept_index, embed.proj.kernel_size)  # [B, K, C * a * b * c]
    tokens = F.linear(patches, embed.proj.weight.flatten(1), embed.proj.bias)  # [B, K, D]
    tokens = embed.norm(tokens) if isinstance(embed, PatchEmbed) else tokens
    # What the host puts around tokens of zeros is what it adds to any: its table, behind its prefix tokens.
    added = host._pos_embed(tokens.new_zeros(1, embed.num_patches, tokens.shape[-1]))  # [1, P + N, D]
    num_prefix = int(host.num_prefix_tokens)
    tokens = tokens + added[0, num_prefix:][kept_index]
    if num_prefix:
        tokens = torch.cat((added[:, :num_prefix].expand(len(tokens), -1, -1), tokens), dim=1)
    return host.norm_pre(tokens)


def take_patches(pixels: Tensor, kept_index: Tensor, size: tuple[int, ...]) -> Tensor:
    """The pixels of some patches, in the order of a kernel's weights: [B, C, (T,) H, W] -> [B, K, C * prod(size)].

    Only these pixels are read. `kept_index` [B, K] counts patches of `size` pixels in (t,) h, w order.
    """
    counts = [length // step for length, step in zip(pixels.shape[2:], size, strict=True)]
    blocks = pixels
    for axis, (count, step) in enumerate(zip(counts, size, strict=True)):
        blocks = blocks.unflatten(2 + 2 * axis, (count, step))  # a view: [B, C, t, a, h, b, w, c] at the end
    picked: list[Tensor | slice] = [torch.arange(len(pixels), device=pixels.device)[:, None], slice(None)]
    rest = kept_index
    for count in reversed(counts):
        picked[2:2] = [rest % count, slice(None)]
        rest = rest // count
    return blocks[tuple(picked)].flatten(2)  # indexed axes come first: [B, K, C, a, b, c] -> [B, K, C * a * b * c]
