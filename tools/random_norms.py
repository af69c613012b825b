"""Batch norms as a trained network has them: at their initial values a mistake in folding or loading does not show."""

from __future__ import annotations

import torch
from torch import nn


@torch.no_grad()
def randomise_norms(net: nn.Module, seed: int = 0, variances: tuple[float, float] = (0.5, 1.5)) -> None:
    """Give every batch norm in `net` a scale, a shift and statistics of its own; `variances` are their bounds."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.weight.uniform_(0.5, 1.5, generator=generator)
            module.bias.uniform_(-0.3, 0.3, generator=generator)
            module.running_mean.uniform_(-0.3, 0.3, generator=generator)
            module.running_var.uniform_(*variances, generator=generator)
