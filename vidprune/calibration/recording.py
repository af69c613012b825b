"""What the blocks of a host see and put out in a forward pass of its own, with their attention in the graph."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from vidprune.compat import ensure_torchvision
from vidprune.pruners.block_parts import check_composable

ensure_torchvision()
from timm.models.vision_transformer import VisionTransformer  # noqa: E402  (the guard above must come first)


@dataclass
class Recorded:
    """First input and output of each submodule that ran, by its dotted name."""

    inputs: dict[str, Tensor] = field(default_factory=dict)
    outputs: dict[str, Tensor] = field(default_factory=dict)

    def hook(self, name: str) -> Callable[..., None]:
        """A forward hook that notes what goes through the module called `name`."""

        def note(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.inputs[name], self.outputs[name] = inputs[0], output

        return note


@dataclass
class Recording:
    """One forward pass: the modules of each block ("" is the block itself), and those of the host after the blocks."""

    blocks: list[Recorded]
    head: Recorded

    @property
    def attention(self) -> list[Tensor]:
        """Attention of each block, [B, heads, P + N, P + N]."""
        return [block.outputs["attn.attn_drop"] for block in self.blocks]

    @property
    def tokens(self) -> list[Tensor]:
        """What each block puts out, [B, P + N, D]."""
        return [block.outputs[""] for block in self.blocks]


@contextmanager
def recording(host: VisionTransformer) -> Iterator[Recording]:
    """Record the forward passes of `host` inside the context; attention is written out for that long, not fused.

    Raises:
        UnsupportedModelError: for a host whose blocks are of another kind than timm's.
    """
    found = Recording([Recorded() for _ in host.blocks], Recorded())
    with ExitStack() as undo:
        for index, (block, recorded) in enumerate(zip(host.blocks, found.blocks, strict=True)):
            check_composable(block, index)
            undo.callback(setattr, block.attn, "fused_attn", block.attn.fused_attn)
            block.attn.fused_attn = False
            _record(block, recorded, undo)
        _record(host, found.head, undo, among=("norm", "head"))
        yield found


def _record(module: Any, recorded: Recorded, undo: ExitStack, among: tuple[str, ...] | None = None) -> None:
    for name, part in module.named_modules():
        if among is None or name in among:
            undo.callback(part.register_forward_hook(recorded.hook(name)).remove)
