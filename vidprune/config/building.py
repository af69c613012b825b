"""From configs to objects: the host, its methods, the views, the device, how an evaluation runs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vidprune.config.classes import DEMO, EvaluateConfig, ModelConfig, RunConfig
from vidprune.config.fields import build, checked_keys
from vidprune.errors import ConfigError, unknown_name
from vidprune.pruners import METHODS

if TYPE_CHECKING:
    from torch import nn

    from vidprune.evaluation.runner import RunnerSettings
    from vidprune.proposals.base import Proposal
    from vidprune.pruners.base import Pruner
    from vidprune.video import ViewPlan

MAX_WORKERS = 16
"""Decode processes where a config names none; more where one does."""


def method_steps(method: object) -> list[Mapping[str, Any]]:
    """The method as a list of its steps; a single one is a list of one."""
    steps: list[Any] = list(method) if isinstance(method, Sequence) and not isinstance(method, str) else [method]
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
    if str(fields.get("proposal")).rpartition(":")[2] == "x3d_tiny" and "proposal_checkpoint" not in fields:
        fields["proposal_checkpoint"] = str(demo_file("x3d_tiny.safetensors"))
    pruner: Pruner = build(cls, fields, f"method {name}")
    return pruner


def share_proposals(methods: Sequence[Pruner], made: dict[Hashable, Proposal]) -> tuple[Pruner, ...]:
    """`methods` with PaPr's proposal as an object of `made`, so that equal ones are built and kept in memory once."""
    from vidprune.proposals import create_proposal
    from vidprune.pruners.papr import PaPr

    def shared(method: Pruner) -> Pruner:
        if not isinstance(method, PaPr) or not isinstance(method.proposal, str):
            return method
        key = (method.proposal, method.proposal_checkpoint, method.input_treatment)
        if key not in made:
            name, checkpoint, treatment = key
            made[key] = create_proposal(name, checkpoint=checkpoint, input_treatment=treatment)
        return dataclasses.replace(method, proposal=made[key], proposal_checkpoint=None)

    return tuple(shared(method) for method in methods)


def build_host(config: RunConfig) -> nn.Module:
    """The unpruned host in float32 on the CPU, in eval mode."""
    import torch

    from vidprune.models import MODELS, create_model, load_model

    model = config.model
    if model.name == DEMO:
        return load_model("videomae_tiny", demo_file("videomae_tiny.safetensors"))
    if "/" not in model.name and model.name not in ("auto", *MODELS.names()):
        raise unknown_name("model", model.name, (DEMO, *MODELS.names(), "timm/NAME", "frames/NAME"))
    if model.checkpoint is not None:
        return load_model(model.name, model.checkpoint, num_classes=model.num_classes)
    torch.manual_seed(config.seed)
    return create_model(model.name, num_classes=model.num_classes or 400)


def build_model(config: RunConfig) -> nn.Module:
    """The host, pruned if a method is named, on its device, in its dtype, in eval mode; compiled if so told."""
    import torch

    from vidprune.compiling import compile_model
    from vidprune.pruning import prune

    device = resolve_device(config.device)
    host = build_host(config)
    methods = build_methods(config.method, config.model)
    torch.manual_seed(config.seed)  # the same random proposal whether or not the host's weights were drawn before it
    module = prune(host, methods) if methods else host
    module = module.to(device=device, dtype=getattr(torch, config.dtype)).eval()
    return compile_model(module) if config.compile else module


def build_views(config: RunConfig, model: nn.Module) -> ViewPlan:
    """The view plan: the config's fields over what the model takes."""
    from vidprune.inference import plan_for

    plan = plan_for(model)
    return dataclasses.replace(plan, **checked_keys(type(plan), config.views, "views"))


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
    return Path(__file__).parents[1] / "data" / "demo" / name


def demo_or_path(manifest: str) -> str:
    """The manifest's path: "demo" is the list of the shipped clips, unless a file or folder is called so."""
    return str(demo_file("clips") / "labels.csv") if manifest == DEMO and not Path(DEMO).exists() else manifest


def runner_settings(config: EvaluateConfig) -> RunnerSettings:
    """How the loop runs, the number of decode processes settled."""
    from vidprune.evaluation.runner import RunnerSettings

    cores = len(os.sched_getaffinity(0)) // int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    return RunnerSettings(
        workers=max(1, min(MAX_WORKERS, cores)) if config.workers is None else config.workers,
        timeout_s=config.timeout_s,
        views_per_batch=config.run.views_per_batch,
        flush_rows=config.flush_rows,
        flush_s=config.flush_s,
        stored=config.store,
        prefetch=config.prefetch,
    )
