"""Small timm hosts of every kind that pruners must run on, with weights that do not hide mistakes."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from vidprune.compat import ensure_torchvision
from vidprune.models.videomae import VideoMAE, VideoMAESpec

ensure_torchvision()
from timm.layers import Attention  # noqa: E402
from timm.models.deit import VisionTransformerDistilled  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 4, "num_classes": 7}


class GatedAttention(Attention):
    """timm's attention with its output gate on."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs, gated=True)  # type: ignore[arg-type]


IMAGE_HOSTS: dict[str, dict[str, object]] = {
    "class token": {},
    "no class token": {"class_token": False, "global_pool": "avg"},
    "registers": {"reg_tokens": 4},
    "LayerScale": {"init_values": 0.3},
    "qk-norm": {"qk_norm": True},
    "pre-norm": {"pre_norm": True},
    "scaled norms": {"scale_attn_norm": True, "scale_mlp_norm": True},
    "average pool, class token": {"global_pool": "avg"},
    "dynamic size": {"dynamic_img_size": True},
    "gated attention": {"attn_layer": GatedAttention},
}
ALL_HOSTS = (*IMAGE_HOSTS, "distilled", "plain attention", "VideoMAE")
FEW_HOSTS = ("class token", "no class token", "registers", "distilled", "VideoMAE")


def randomised(host: VisionTransformer, seed: int = 0) -> VisionTransformer:
    """Fan-in scaled weights and non-zero vectors: timm's tiny initial values would hide mistakes below a tolerance."""
    torch.manual_seed(seed)
    for parameter in host.parameters():
        if parameter.ndim > 1 and parameter.shape[0] > 1:
            nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)
        else:
            nn.init.normal_(parameter, mean=0.5, std=0.5)
    return host.eval()


def make_host(name: str, depth: int = 3) -> VisionTransformer:
    """The host called `name`: 16 patches of an image of 32 pixels, or 64 tubelets."""
    sizes = SMALL | {"depth": depth}
    if name == "VideoMAE":
        return randomised(VideoMAE(VideoMAESpec(width=32, depth=depth, num_heads=4, num_frames=8, image_size=64), 7))
    if name == "distilled":
        return randomised(VisionTransformerDistilled(**sizes))
    host = randomised(VisionTransformer(**(sizes | IMAGE_HOSTS.get(name, {}))))
    if name == "plain attention":
        for block in host.blocks:
            block.attn.fused_attn = False
    return host


def pixels_for(host: VisionTransformer, batch: int = 2, seed: int = 1) -> torch.Tensor:
    """Random input of the host's size."""
    shape = (3, 8, 64, 64) if isinstance(host, VideoMAE) else (3, 32, 32)
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


Between = Callable[[int, torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def run_by_hand(host: VisionTransformer, pixels: torch.Tensor, between: Between) -> torch.Tensor:
    """Logits [classes] of one sample on a plain pre-norm host, attention written out.

    `between(block, x, probs, keys)` gets the tokens [N, D] after the attention's residual, the attention [heads, N, N]
    and the keys [heads, N, head_dim], and returns the tokens that go on to the MLP.
    """
    x = host._pos_embed(host.patch_embed(pixels))[0]  # [N, D]
    for index, block in enumerate(host.blocks):
        heads, size = block.attn.num_heads, block.attn.head_dim
        q, k, v = block.attn.qkv(block.norm1(x)).view(-1, 3, heads, size).permute(1, 2, 0, 3)  # [heads, N, size]
        probs = (q @ k.transpose(1, 2) / math.sqrt(size)).softmax(-1)
        x = x + block.attn.proj((probs @ v).transpose(0, 1).reshape(len(x), -1))
        x = between(index, x, probs, k)
        x = x + block.mlp(block.norm2(x))
    return host.forward_head(host.norm(x)[None])[0]
