"""A GPU that is not there: tensors that say `cuda:0`, compute on the CPU, and tell what a real GPU would wait for.

Python sees `tensor.device == cuda:0` and `tensor.is_cuda`; PyTorch's C++ sees a meta tensor; the values are those of
the CPU tensor inside. So code runs as it would on a GPU, with true results, and every operation of it is seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

CUDA, CPU = torch.device("cuda", 0), torch.device("cpu")
_COPIES = {"_to_copy", "copy_"}
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_"}  # of the size of the result only for masks
_PRODUCTS = {"mm", "bmm", "addmm", "baddbmm", "convolution"}
_WAITS = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
_FROM_VALUES = {torch.tensor, torch.as_tensor, torch.asarray}


class GPUTensor(Tensor):
    """A tensor on the GPU that is not there; `value` is what it holds, on the CPU."""

    value: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, value: Tensor) -> GPUTensor:
        tensor = Tensor._make_wrapper_subclass(
            cls,
            value.shape,
            strides=value.stride(),
            storage_offset=value.storage_offset(),
            dtype=value.dtype,
            device="meta",
            requires_grad=value.requires_grad,
        )
        tensor.value = value
        return tensor

    device = property(lambda self: CUDA)  # type: ignore[assignment]
    is_cuda = property(lambda self: True)  # type: ignore[assignment]
    is_cpu = property(lambda self: False)  # type: ignore[assignment]
    is_meta = property(lambda self: False)  # type: ignore[assignment]

    def tolist(self) -> Any:
        return self.to(CPU).tolist()  # which is what PyTorch does: one copy, however many values

    def numpy(self, *args: object, **kwargs: object) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    def __deepcopy__(self, memo: dict[int, object]) -> GPUTensor:
        copied = self.detach().clone().requires_grad_(self.requires_grad)
        copied.__dict__.update({name: item for name, item in self.__dict__.items() if name != "value"})
        memo[id(self)] = copied
        return copied

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} ran on the stand-in's tensors outside of it")


class StandInGPU(TorchDispatchMode):
    """While it is entered, `cuda` is a device. See `stand_in_gpu`.

    It raises where a GPU would: tensors on two devices in one operation, products of integers, a generator of the CPU.

    Attributes:
        reads: what made the host wait for a value or a size, by operation.
        uploads: copies from the host, by operation: from pageable memory each waits for the GPU, and no CUDA graph
            holds them.
        on_cpu: other operations on tensors that are on the CPU, which no CUDA graph holds either.
        unsafe: operations that PyTorch itself leaves out of CUDA graphs.
    """

    def __init__(self) -> None:
        super().__init__()
        self._functions = _CudaIsMeta()
        self.forget()

    def forget(self) -> None:
        """Start counting anew."""
        self.reads: Counter[str] = Counter()
        self.uploads: Counter[str] = Counter()
        self.on_cpu: Counter[str] = Counter()
        self.unsafe: Counter[str] = Counter()

    def __enter__(self) -> StandInGPU:
        self._functions.__enter__()
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._functions.__exit__(*exception)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.removeprefix("aten::"), dict(kwargs or {})
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        device = kwargs.get("device")
        if device is not None:
            to_gpu = device.type == "meta"
        else:
            to_gpu = any(isinstance(tensor, GPUTensor) for tensor in (given[:1] if name == "copy_" else given))
        self._note(func, name, given, to_gpu)
        if to_gpu:
            _refuse(name, given, kwargs)
        if device is not None and to_gpu:
            kwargs["device"] = CPU
        values = tree_map(lambda leaf: leaf.value if isinstance(leaf, GPUTensor) else leaf, (args, kwargs))
        result = func(*values[0], **values[1])
        if not to_gpu:
            return result
        result = tree_map(lambda leaf: GPUTensor(leaf) if isinstance(leaf, Tensor) else leaf, result)
        crossed = not any(isinstance(tensor, GPUTensor) for tensor in given)
        return result if crossed else return_and_correct_aliasing(func, args, kwargs, result)

    def _note(self, func: Any, name: str, given: list[Tensor], to_gpu: bool) -> None:
        on_host = [tensor for tensor in given if not isinstance(tensor, GPUTensor)]
        on_gpu = len(given) - len(on_host)
        is_mask = name not in _INDEXED or any(tensor.dtype in (torch.bool, torch.uint8) for tensor in given[1:])
        if on_gpu and (any(tag in func.tags for tag in _WAITS) and is_mask):
            self.reads[name] += 1
        if name in _COPIES and on_gpu and not to_gpu:
            self.reads[name] += 1
        elif on_host and to_gpu and name in _COPIES | _INDEXED:
            self.uploads[name] += 1
        elif on_host or not (given or to_gpu):
            self.on_cpu[name] += 1
        if torch.Tag.cudagraph_unsafe in func.tags:
            self.unsafe[name] += 1


def _refuse(name: str, given: list[Tensor], kwargs: dict[str, Any]) -> None:
    """Raise where a GPU would. A tensor without axes may be on the CPU: kernels take it as a number."""
    on_host = [tensor for tensor in given if not isinstance(tensor, GPUTensor)]
    if any(tensor.ndim for tensor in on_host) and name not in _COPIES | _INDEXED:
        raise RuntimeError(f"{name}: Expected all tensors to be on the same device, found cuda:0 and cpu")
    if name in _INDEXED and not isinstance(given[0], GPUTensor):
        raise RuntimeError(f"{name}: indices should be on the same device as the indexed tensor (cpu)")
    if name in _PRODUCTS and not all(tensor.is_floating_point() for tensor in given):
        raise RuntimeError(f"{name}: not implemented on cuda:0 for integers")
    if kwargs.get("generator") is not None:
        raise RuntimeError(f"{name}: Expected a 'cuda' device type for generator but found 'cpu'")


class _CudaIsMeta(TorchFunctionMode):
    """Tells PyTorch's C++ "meta" where Python says "cuda"."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        args, kwargs = tree_map(_device_for_cpp, (args, dict(kwargs or {})))
        if func in _FROM_VALUES or func is Tensor.new_tensor:  # which would make a meta tensor without its values
            like = args[0] if func is Tensor.new_tensor else None
            device = kwargs.pop("device", None) or (torch.device("meta") if isinstance(like, GPUTensor) else CPU)
            if like is not None:
                func, args, kwargs = torch.tensor, args[1:], {"dtype": like.dtype, **kwargs}
            if not any(isinstance(leaf, GPUTensor) for leaf in tree_leaves(args)):
                return func(*args, **kwargs).to(device)
        return func(*args, **kwargs)


def _device_for_cpp(argument: Any) -> Any:
    is_cuda = isinstance(argument, torch.device) and argument.type == "cuda"
    return torch.device("meta") if is_cuda or (isinstance(argument, str) and argument.startswith("cuda")) else argument


@contextmanager
def stand_in_gpu() -> Iterator[StandInGPU]:
    """A GPU that is not there: modules and tensors move to it by `.to("cuda")`. Not under `torch.inference_mode`."""
    before = torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # a parameter's tensor cannot change its class
    try:
        with StandInGPU() as gpu:
            yield gpu
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(before)
