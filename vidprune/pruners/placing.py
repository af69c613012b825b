"""Where a method's own weights and tables lie."""

from __future__ import annotations

from torch import nn


def move_beside(steps: nn.Module, host: nn.Module) -> None:
    """Put what `steps` hold, a proposal's weights for one, on the device of `host`, which may be on a GPU already.

    Their dtype stays: a proposal in float32 serves a host in half precision. A host without data moves nothing.
    """
    device = next(host.parameters()).device
    tensors = (*steps.parameters(), *steps.buffers())
    if device.type != "meta" and any(tensor.device != device for tensor in tensors):
        steps.to(device)
