"""YAML or flags -> checked dataclasses -> objects. A config is readable alone: no inheritance, no interpolation.

model: {name: videomae_base, checkpoint: k400.pth}
method: {name: papr, keep_ratio: 0.45, proposal: x3d_s, proposal_checkpoint: x3d_s.pyth}
views: {protocol: videomae, num_segments: 5, num_crops: 3}
device: auto
dtype: float32

An evaluation adds the videos, `manifest: val.csv` and `out: runs/b45`; a sweep lists `models`, `methods`, `proposals`
and `keep_ratios` in place of the one model and method.
"""

from vidprune.config.building import (
    build_host,
    build_method,
    build_methods,
    build_model,
    build_views,
    demo_file,
    demo_or_path,
    method_steps,
    resolve_device,
    runner_settings,
    share_proposals,
    without_weights,
)
from vidprune.config.checks import ConfigCheck, check_config
from vidprune.config.classes import (
    DEMO,
    DTYPES,
    EvaluateConfig,
    ModelConfig,
    ProposalConfig,
    RunConfig,
    SweepConfig,
    SweepGrid,
)
from vidprune.config.points import PointConfig, expand
from vidprune.config.reading import (
    apply_settings,
    kind_of,
    load_config,
    parse_config,
    parse_evaluation,
    parse_sweep,
    read_data,
)

__all__ = [
    "DEMO",
    "DTYPES",
    "ConfigCheck",
    "EvaluateConfig",
    "ModelConfig",
    "PointConfig",
    "ProposalConfig",
    "RunConfig",
    "SweepConfig",
    "SweepGrid",
    "apply_settings",
    "build_host",
    "build_method",
    "build_methods",
    "build_model",
    "build_views",
    "check_config",
    "demo_file",
    "demo_or_path",
    "expand",
    "kind_of",
    "load_config",
    "method_steps",
    "parse_config",
    "parse_evaluation",
    "parse_sweep",
    "read_data",
    "resolve_device",
    "runner_settings",
    "share_proposals",
    "without_weights",
]
