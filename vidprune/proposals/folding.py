"""A network made ready to run: batch norms folded, channels innermost, convolutions without time as what they are.

All of it leaves what is computed as it is, but for rounding. The network itself keeps its parts and names, in which it
loads and saves; `FoldedNet` holds a private copy beside it and makes a new one whenever the weights have changed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


def fold_batch_norms(net: nn.Module, *, depthwise_innermost: bool | None = None) -> nn.Module:
    """A copy of `net`, in eval mode, whose 3-D convolutions do the work of the batch norms behind them.

    The norm of W * x, scaled by g / sqrt(v + e) and shifted, is itself a convolution. It is folded where nothing else
    reads the convolution's output. What looks at one pixel or one frame at a time is run as such (`_PerPixel`,
    `_PerFrame`); the other weights lie channels_last_3d, but for depthwise ones on a GPU (`_PlainDepthwise`).

    Args:
        depthwise_innermost: depthwise convolutions lie channels_last_3d too; None means on a CPU.
    """
    dtype = next((p.dtype for p in net.parameters()), torch.float32)
    exact = torch.promote_types(dtype, torch.float32)  # half precision is for the result
    folded = fx.symbolic_trace(copy.deepcopy(net).eval().to(exact))
    modules = dict(folded.named_modules())
    for node in list(folded.graph.nodes):
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm3d):
            continue
        source = node.args[0]
        if source.op == "call_module" and isinstance(modules[source.target], nn.Conv3d) and len(source.users) == 1:
            folded.set_submodule(source.target, fuse_conv_bn_eval(modules[source.target], modules[node.target]))
            node.replace_all_uses_with(source)
            folded.graph.erase_node(node)
    for node in folded.graph.nodes:  # activations write over what nobody else reads: new memory costs more than they do
        if node.op == "call_module" and isinstance(modules[node.target], nn.ReLU | nn.SiLU):
            source = node.args[0]
            modules[node.target].inplace = source.op != "placeholder" and len(source.users) == 1
    folded.recompile()
    folded.delete_all_unused_submodules()
    for name, module in list(folded.named_modules()):
        if isinstance(module, nn.Conv3d) and (simple := _without_time(module)) is not None:
            folded.set_submodule(name, simple)
    folded = folded.to(dtype).requires_grad_(False)
    if depthwise_innermost is None:
        depthwise_innermost = not any(p.is_cuda for p in net.parameters())
    for name, module in list(folded.named_modules()):
        if not isinstance(module, nn.Conv3d):
            continue
        if module.groups == module.in_channels > 1 and not depthwise_innermost:
            folded.set_submodule(name, _PlainDepthwise(module))
        else:
            module.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]  # the stub lacks it
    return folded


def _without_time(conv: nn.Conv3d) -> nn.Module | None:
    """`conv` as a matrix product per pixel or a convolution per frame, if it is one."""
    size, stride, padding = conv.kernel_size, conv.stride, conv.padding
    if isinstance(padding, str) or set(conv.dilation) != {1} or conv.padding_mode != "zeros" or size[0] != 1:
        return None
    if size == (1, 1, 1) and not any(padding) and conv.groups == 1:
        return _PerPixel(conv)
    return _PerFrame(conv) if stride[0] == 1 and padding[0] == 0 and conv.groups == 1 else None


class _PerPixel(nn.Module):
    """A 1x1x1 convolution as one matrix product. PyTorch's own goes a slow way on one thread and copies its input."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(conv.weight.flatten(1)), conv.bias
        self.stride = conv.stride

    def forward(self, x: Tensor) -> Tensor:
        t, h, w = self.stride
        pixels = x[:, :, ::t, ::h, ::w].permute(0, 2, 3, 4, 1)  # [B, t', h', w', C], as it lies in memory
        return F.linear(pixels, self.weight, self.bias).permute(0, 4, 1, 2, 3)


class _PerFrame(nn.Module):
    """A convolution of size 1 in time as a 2-D one on all frames."""

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        weight = conv.weight.squeeze(2).contiguous(memory_format=torch.channels_last)
        self.weight, self.bias = nn.Parameter(weight), conv.bias
        self.stride, self.padding = conv.stride[1:], conv.padding[1:]

    def forward(self, x: Tensor) -> Tensor:
        frames = x.permute(0, 2, 3, 4, 1).flatten(0, 1).permute(0, 3, 1, 2)  # [B T, C, H, W], channels_last: a view
        frames = F.conv2d(frames, self.weight, self.bias, self.stride, self.padding)
        return frames.permute(0, 2, 3, 1).unflatten(0, (x.shape[0], -1)).permute(0, 4, 1, 2, 3)


class _PlainDepthwise(nn.Module):
    """A depthwise 3-D convolution in PyTorch's default memory order, between tensors with channels innermost.

    On CUDA PyTorch has a kernel of its own for that order alone; with channels innermost it hands the convolution to
    cuDNN, as one of as many groups as channels. `tools/bench_proposal.py --device cuda` times both.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x.contiguous())
        return y.contiguous(memory_format=torch.channels_last_3d)


class FoldedNet:
    """The folded copy of a network, not a module, so that neither state dicts nor `parameters()` see it twice.

    Every change that PyTorch can tell of makes a new copy at the next call: weights written in place, loaded or
    replaced. Writing through `.data` is not among them; call `refresh` then. Weights made in inference mode tell of no
    change at all, so the network itself runs. Under `torch.compile` the copy is as it was at the last call, load or
    move.
    """

    def __init__(self, net: nn.Module) -> None:
        self.refresh(net)

    def refresh(self, net: nn.Module) -> None:
        """Fold `net` anew."""
        self.net = fold_batch_norms(net)
        self._source = net
        self._tensors = list(_tensors(net))
        self._untracked = any(tensor.is_inference() for tensor in self._tensors)
        self._versions = self._written()

    def current(self, net: nn.Module) -> nn.Module:
        """The folded copy of `net` as it is now; `net` where that cannot be known."""
        if self._untracked:
            return net
        if not torch.compiler.is_compiling() and (net is not self._source or self._written() != self._versions):
            self.refresh(net)
        return self.net

    def _written(self) -> int:
        """How often the source's tensors have been written to."""
        return 0 if self._untracked else sum(tensor._version for tensor in self._tensors)


def _tensors(net: nn.Module) -> Iterator[Tensor]:
    yield from net.parameters()
    yield from (buffer for name, buffer in net.named_buffers() if not name.endswith("num_batches_tracked"))
