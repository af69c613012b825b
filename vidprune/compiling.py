"""`compile_model(model)`: the same model with its forward pass compiled, where no shape depends on the input."""

from __future__ import annotations

import copy
import dataclasses
import logging
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from vidprune.errors import UnsupportedModelError
from vidprune.models.frame_batch import FrameBatch
from vidprune.pruning import PrunedViT

logger = logging.getLogger(__name__)


def compile_model(model: nn.Module, *, backend: str | Callable[..., Any] = "inductor") -> nn.Module:
    """A model that shares every weight with `model` and runs compiled: kernels fused and, on CUDA, one CUDA graph.

    `model` itself stays as it is. Results are equal up to rounding. Where a method's counts depend on the input there
    is no one graph, and `model` comes back uncompiled, with a warning in the log.

    Args:
        model: in eval mode, on its device, in its dtype.
        backend: of `torch.compile`.
    """
    if isinstance(model, FrameBatch):
        return model.over(compile_model(model.model, backend=backend))
    if isinstance(model, PrunedViT) and model.ragged:
        names = ", ".join(method.name for method in model.methods)
        logger.warning("not compiled: the number of tokens that %s keeps depends on the input", names)
        return model
    compiled = copy.copy(model)
    name = "_forward" if isinstance(model, PrunedViT) else "forward"
    on_cuda = next(model.parameters()).is_cuda
    compiled.__dict__[name] = CompiledForward(getattr(model, name), backend=backend, graphs=on_cuda)
    return compiled


def is_compiled(model: nn.Module) -> bool:
    """Whether `compile_model` made it."""
    inner = model.model if isinstance(model, FrameBatch) else model
    return any(isinstance(value, CompiledForward) for value in inner.__dict__.values())


class CompiledForward:
    """A forward pass compiled for the largest batch it has seen; smaller batches run as they would uncompiled.

    So the last, smaller batch of a video costs no second compilation of seconds to minutes, and no padding. After the
    device ran out of memory the next batch sets the size anew. On CUDA the first call compiles, the second records the
    graph, and from the third on it is replayed.
    """

    def __init__(self, forward: Callable[..., Any], *, backend: str | Callable[..., Any], graphs: bool) -> None:
        self.plain = forward
        self.graphs = graphs
        mode = "reduce-overhead" if graphs and backend == "inductor" else None  # CUDA graphs
        self.compiled = torch.compile(_with_code_of_its_own(forward), backend=backend, mode=mode, dynamic=False)
        self.batch = 0

    def __call__(self, pixels: Tensor, *rest: Any) -> Any:
        if len(pixels) < self.batch:
            return self.plain(pixels, *rest)
        self.batch = len(pixels)
        try:
            result = self.compiled(pixels, *rest)
        except torch.OutOfMemoryError:
            self.batch = 0
            raise
        except torch._dynamo.exc.ShortenTraceback as error:  # a compiler that failed, or no Triton, or too old a GPU
            inner = getattr(error, "inner_exception", None)
            if isinstance(inner, torch.OutOfMemoryError):  # a smaller batch may still be compiled
                self.batch = 0
                raise inner from error
            reason = str(error).strip().splitlines()[0]
            raise UnsupportedModelError(
                f"this model cannot be compiled here: {reason}; run it without compile"
            ) from error
        # A CUDA graph writes its results into the same memory every time. With copies taken and the results gone, the
        # next call may write; `cudagraph_mark_step_begin` would say so too, but for all compiled code in the process.
        return _copied(result) if self.graphs else result


def _with_code_of_its_own(forward: Callable[..., Any]) -> Callable[..., Any]:
    """`forward` behind a code object that nothing else shares.

    PyTorch counts compilations per code object and runs everything uncompiled from the ninth on
    (`torch._dynamo.config.recompile_limit`): so it would be with the ninth model of a sweep, as all share one method.
    """

    def run(*args: Any) -> Any:
        return forward(*args)

    return FunctionType(run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__)


def _copied(value: Any) -> Any:
    """The same tuples, lists and dataclasses around copies of their tensors."""
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, tuple | list):
        return type(value)(_copied(item) for item in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: _copied(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return value
