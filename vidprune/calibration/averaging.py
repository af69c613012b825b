"""From a host and some inputs to a `Calibration`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from vidprune.calibration.recording import recording
from vidprune.calibration.relevance import attention_relevance, check_plain
from vidprune.calibration.scores import average_similarity, row_of_the_head, scores_to_the_end
from vidprune.compat import ensure_torchvision
from vidprune.errors import ConfigError
from vidprune.pruners.calibration import Calibration
from vidprune.pruning import host_info, host_of

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)

METHODS = ("rollout", "lrp")


def calibrate(
    host: VisionTransformer,
    batches: Iterable[Tensor],
    *,
    method: str = "rollout",
    num_classes: int = 6,
    inter: np.ndarray | None = None,
    name: str = "unnamed",
) -> Calibration:
    """Average over `batches` what `STAR` needs (ICLR 2024, Algorithm 2 and Eq. 5).

    Args:
        host: a timm `VisionTransformer` in eval mode. It is called and not changed.
        batches: inputs of the host, [B, 3, T, H, W] or [B, 3, H, W]; every input weighs the same.
        method: "rollout", gradient times attention; "lrp", gradient times relevance, for plain pre-norm hosts.
        num_classes: the paper's gamma: the most probable classes of each input whose scores are averaged.
        inter: your own inter-layer scores [L, N]; then only the similarity is computed, without gradients.
        name: of the host, for people who read the file.

    Raises:
        ConfigError: for a host in training mode, no batch, or arguments out of range.
        UnsupportedModelError: for a host that `method` does not cover.
    """
    host = host_of(host)
    _check(host, method, num_classes)
    if method == "lrp" and inter is None:
        check_plain(host)
    total_scores = total_similarity = torch.zeros((), dtype=torch.float64)
    count, num_classes = 0, min(num_classes, int(host.num_classes))
    for pixels in batches:
        if inter is None:
            scores, similarity = score_batch(host, pixels, method, num_classes)
            total_scores = total_scores + scores.sum(dim=1).cpu()  # [L, P + N]
        else:
            similarity = similarity_of_batch(host, pixels)
        total_similarity = total_similarity + similarity.sum(dim=1).cpu()  # [L]
        count += len(pixels)
    if not count:
        raise ConfigError("calibration needs at least one input, got none")
    return Calibration(
        inter=(total_scores / count)[:, host.num_prefix_tokens :].numpy() if inter is None else inter,
        similarity=(total_similarity / count).numpy(),
        grid=host_info(host).grid,
        host=name,
        method=method if inter is None else "given",
        num_inputs=count,
        num_classes=num_classes if inter is None else 0,
    )


def _check(host: VisionTransformer, method: str, num_classes: int) -> None:
    if host.training:
        raise ConfigError("the host is in training mode, in which its answers are random; call host.eval() first")
    if method not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    if num_classes < 1:
        raise ConfigError(f"num_classes must be at least 1, got {num_classes}")


def score_batch(host: VisionTransformer, pixels: Tensor, method: str, num_classes: int) -> tuple[Tensor, Tensor]:
    """Scores to the end, float64 [L, B, P + N], mean over each sample's classes, and similarity, float64 [L, B]."""
    with torch.enable_grad(), recording(host) as seen:
        # From the input on, so that a host with frozen weights has a graph too.
        logits = host(pixels.detach().requires_grad_())  # [B, classes]
    attention = seen.attention
    row = row_of_the_head(host, attention[0].shape[-1], pixels.device)
    classes = logits.detach().topk(num_classes, dim=1).indices  # [B, gamma]
    total = torch.zeros((), dtype=torch.float64, device=pixels.device)
    for rank in range(num_classes):
        chosen = classes[:, rank]
        # A sample's logit depends on that sample alone, so one backward pass of the sum serves the whole batch.
        score = logits.gather(1, chosen.unsqueeze(1)).sum()
        gradients = torch.autograd.grad(score, attention, retain_graph=rank + 1 < num_classes)
        weights = attention_relevance(host, seen, chosen) if method == "lrp" else [a.detach() for a in attention]
        total = total + scores_to_the_end(gradients, weights, row)
    return total / num_classes, torch.stack([average_similarity(tokens) for tokens in seen.tokens])


@torch.no_grad()
def similarity_of_batch(host: VisionTransformer, pixels: Tensor) -> Tensor:
    """Average similarity of what each block puts out, float64 [L, B]."""
    with recording(host) as seen:
        host(pixels)
    return torch.stack([average_similarity(tokens) for tokens in seen.tokens])
