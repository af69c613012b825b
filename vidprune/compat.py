"""The torchvision guard: timm, pytorchvideo and transformers import even where torchvision's C++ extension cannot load.

On a CPU-only torch, the registry's torchvision is linked against CUDA, so `import torchvision` fails with "operator
torchvision::nms does not exist", and so do all packages above it. Declaring the two operators repairs the import;
calling them still fails, and nothing here calls them.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

_declared_ops: Any = None  # where they were declared must outlive this module's callers


def ensure_torchvision() -> str:
    """Call before the first import of timm, pytorchvideo, torchvision or transformers' vision models. Idempotent.

    Returns:
        How torchvision was made usable: "imported" (already there), "native" (its extension loads), "declared"
        (operators declared by us) or "absent" (not installed).
    """
    global _declared_ops
    if "torchvision" in sys.modules:
        return "imported"
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return "absent"
    import torch
    from torch import library

    state = "declared"
    for extension in sorted(Path(spec.origin).parent.glob("_C*.so")):
        try:
            torch.ops.load_library(str(extension))
            state = "native"
            break
        except OSError:
            continue
    if state == "declared":
        # Only after the extension failed to load: declaring beside a loaded one would clash with its own registration.
        _declared_ops = library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            if not hasattr(torch.ops.torchvision, name):
                _declared_ops.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import torchvision.transforms._functional_tensor as functional_tensor

    # pytorchvideo 0.1.5 imports the module by the name it had before torchvision 0.17.
    sys.modules.setdefault("torchvision.transforms.functional_tensor", functional_tensor)
    return state
