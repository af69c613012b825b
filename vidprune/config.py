"""YAML or flags -> checked dataclasses -> objects. A config is readable alone: no inheritance, no interpolation.

model: {name: videomae_base, checkpoint: k400.pth}
method: {name: papr, keep_ratio: 0.45, proposal: x3d_s, proposal_checkpoint: x3d_s.pyth}
views: {protocol: videomae, num_segments: 5, num_crops: 3}
device: auto
dtype: float32
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.errors import ConfigError
from vidprune.pruners import METHODS

if TYPE_CHECKING:
    from torch import nn

    from vidprune.pruners.base import Pruner
    from vidprune.video import ViewPlan

DTYPES = ("float32", "float16", "bfloat16")
DEMO = "demo"  # the model trained by us and shipped inside the package


@dataclass(frozen=True)
class ModelConfig:
    """Which host: a registered name, or "demo" for the shipped one; without a checkpoint its weights are random."""

    name: str = "videomae_base"
    checkpoint: str | None = None
    num_classes: int | None = None


@dataclass(frozen=True)
class RunConfig:
    """Everything one run needs.

    Attributes:
        model: the host.
        method: "name" and the fields of that method's config, e.g. {"name": "papr", "keep_ratio": 0.45}; "dense" prunes
            nothing. A list of them is a chain: one before the blocks, then one inside them.
        views: fields of `ViewPlan`; sizes and frames default to what the model takes.
        class_names: a known list ("kinetics400", "imagenet1k", "demo") or a file; None follows the number of classes.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        dtype: "float32", "float16" or "bfloat16".
        backend: the decoder.
        views_per_batch: views that share a forward pass; None is all of a video.
        seed: of random weights.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    method: Mapping[str, Any] | Sequence[Mapping[str, Any]] = field(default_factory=lambda: {"name": "dense"})
    views: Mapping[str, Any] = field(default_factory=dict)
    class_names: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    backend: str = "pyav"
    views_per_batch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        if self.views_per_batch is not None and self.views_per_batch < 1:
            raise ConfigError(f"views_per_batch must be at least 1, got {self.views_per_batch}")


@dataclass(frozen=True)
class EvaluateConfig:
    """A run over the videos of a manifest, kept in a folder that the same config goes on with.

    Attributes:
        manifest: a list of videos, or a folder of class folders; see `vidprune.evaluation.manifests.read_manifest`.
        out: the folder of the run: predictions, report.
        run: the model, the method, the views.
        root: folder that relative paths of the manifest start from.
        manifest_format: "auto", or the manifest's format by name.
        workers: decode processes, 0 for none; None is one per CPU core this process may use, at most 16. The
            processes of a `torchrun` on one machine share its cores.
        timeout_s: seconds after which decoding a file is given up.
        max_failed: failures up to which the command line calls the run a success.
        store: "logits" keeps every view's, "probs" only the average (a fifteenth of the space at 15 views).
        retry_failed: decode the videos again whose rows are failures.
        flush_rows, flush_s: how many rows, or seconds of work, a killed run may lose.
    """

    manifest: str
    out: str
    run: RunConfig = field(default_factory=RunConfig)
    root: str | None = None
    manifest_format: str = "auto"
    workers: int | None = None
    timeout_s: float = 120.0
    max_failed: int = 0
    store: str = "logits"
    retry_failed: bool = False
    flush_rows: int = 64
    flush_s: float = 30.0

    def __post_init__(self) -> None:
        if self.max_failed < 0:
            raise ConfigError(f"max_failed must be at least 0, got {self.max_failed}")


def load_config(path: str | Path) -> RunConfig:
    """Read a YAML config. Raises `ConfigError` for a missing file, bad YAML or an unknown key, with the nearest one."""
    import yaml

    try:
        data = yaml.safe_load(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"cannot read config {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"config {path} is not valid YAML: {' '.join(str(error).split())}") from None
    return parse_config(data or {}, source=str(path))


def parse_config(data: object, *, source: str = "config") -> RunConfig:
    """A `RunConfig` from plain mappings."""
    values = _checked_keys(RunConfig, data, source)
    if "model" in values:
        values["model"] = _build(ModelConfig, values["model"], f"{source}: model")
    if "method" in values:
        method_steps(values["method"])
    if not isinstance(values.get("views", {}), Mapping):
        raise ConfigError(f"{source}: views must be a mapping such as {{num_segments: 5}}, got {values['views']!r}")
    return _build(RunConfig, values, source)


def method_steps(method: object) -> list[Mapping[str, Any]]:
    """The method as a list of its steps; a single one is a list of one."""
    steps = list(method) if isinstance(method, Sequence) and not isinstance(method, str) else [method]
    for step in steps:
        if not isinstance(step, Mapping):
            raise ConfigError(f"method must be a mapping such as {{name: papr}}, or a list of them, got {step!r}")
    if len(steps) > 1 and any(step.get("name") == "dense" for step in steps):
        raise ConfigError("dense prunes nothing, so it cannot be part of a chain of methods; leave it out")
    return steps


def build_methods(method: object, model: ModelConfig | None = None) -> tuple[Pruner, ...]:
    """The config dataclass of every step of `method`, a mapping or a list of them; none for "dense"."""
    built = [build_method(step, model) for step in method_steps(method)]
    return tuple(pruner for pruner in built if pruner is not None)


def without_weights(method: object) -> list[dict[str, Any]]:
    """The method's steps without their weight files, for what needs shapes alone."""
    return [{k: v for k, v in step.items() if not k.endswith("checkpoint")} for step in method_steps(method)]


def build_method(method: Mapping[str, Any], model: ModelConfig | None = None) -> Pruner | None:
    """The method's config dataclass from {"name": ..., **fields}; None for "dense".

    With the demo model, PaPr's proposal defaults to the shipped X3D-tiny.
    """
    fields = dict(method)
    name = fields.pop("name", None)
    if name is None:
        raise ConfigError(f"method needs a name: one of dense, {', '.join(METHODS.names())}")
    if name == "dense":
        if fields:
            raise ConfigError(f"method dense takes no options, got {', '.join(fields)}")
        return None
    cls = METHODS.get(name)
    if name == "papr" and model is not None and model.name == DEMO and "proposal" not in fields:
        fields["proposal"] = "x3d_tiny"
    if fields.get("proposal") == "x3d_tiny" and "proposal_checkpoint" not in fields:
        fields["proposal_checkpoint"] = str(demo_file("x3d_tiny.safetensors"))
    pruner: Pruner = _build(cls, fields, f"method {name}")
    return pruner


def build_model(config: RunConfig) -> nn.Module:
    """The host, pruned if a method is named, on its device, in its dtype, in eval mode."""
    import torch

    from vidprune.models import create_model, load_model
    from vidprune.pruning import prune

    device = resolve_device(config.device)
    model = config.model
    if model.name == DEMO:
        host = load_model("videomae_tiny", demo_file("videomae_tiny.safetensors"))
    elif model.checkpoint is not None:
        host = load_model(model.name, model.checkpoint, num_classes=model.num_classes)
    else:
        torch.manual_seed(config.seed)
        host = create_model(model.name, num_classes=model.num_classes or 400)
    methods = build_methods(config.method, model)
    torch.manual_seed(config.seed)  # the same random proposal whether or not the host's weights were drawn before it
    module = prune(host, methods) if methods else host
    return module.to(device=device, dtype=getattr(torch, config.dtype)).eval()


def build_views(config: RunConfig, model: nn.Module) -> ViewPlan:
    """The view plan: the config's fields over what the model takes."""
    from vidprune.inference import plan_for

    return dataclasses.replace(plan_for(model), **_checked_keys(type(plan_for(model)), config.views, "views"))


def resolve_device(name: str) -> str:
    """ "auto" -> "cuda" where there is one, else "cpu". Raises `ConfigError` for a device that is not there."""
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise ConfigError(
            f"device {name!r} is not usable here: {first_line}; allowed: auto, cpu, cuda, cuda:N"
        ) from None
    return name


def demo_file(name: str) -> Path:
    """A file shipped with the demo."""
    return Path(__file__).parent / "data" / "demo" / name


def _build(cls: Any, data: object, where: str) -> Any:
    values = _checked_keys(cls, data, where)
    missing = [
        f.name
        for f in dataclasses.fields(cls)
        if f.name not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: missing {', '.join(missing)}")
    return cls(**values)


def _checked_keys(cls: Any, data: object, where: str) -> dict[str, Any]:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where} must be a mapping of keys to values, got {data!r}")
    known = [f.name for f in dataclasses.fields(cls)]
    for key in data:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise ConfigError(f"{where}: unknown key {key!r}: {hint}allowed are {', '.join(known)}")
    return dict(data)
