"""vidprune: make off-the-shelf video ViTs fast without retraining.

Importing this package loads no model library and no decoder; each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "create_model": "vidprune.models",
    "load_model": "vidprune.models",
    "create_proposal": "vidprune.proposals",
    "FrameBatch": "vidprune.models.frame_batch",
    "prune": "vidprune.pruning",
    "PrunedViT": "vidprune.pruning",
    "PrunedHierarchical": "vidprune.hierarchical",
    "PaPr": "vidprune.pruners.papr",
    "Random": "vidprune.pruners.controls",
    "Uniform": "vidprune.pruners.controls",
    "Centre": "vidprune.pruners.controls",
    "FrameDifference": "vidprune.pruners.controls",
    "Norm": "vidprune.pruners.controls",
    "ToMe": "vidprune.pruners.tome",
    "ToFu": "vidprune.pruners.tofu",
    "EViT": "vidprune.pruners.evit",
    "ETPS": "vidprune.pruners.etps",
    "GTP": "vidprune.pruners.gtp",
    "ATS": "vidprune.pruners.ats",
    "RLT": "vidprune.pruners.rlt",
    "STAR": "vidprune.pruners.star",
    "AdaptiveSTAR": "vidprune.pruners.star",
    "STA": "vidprune.pruners.sta",
    "DiffRate": "vidprune.pruners.diffrate",
    "Calibration": "vidprune.pruners.calibration",
    "predict_video": "vidprune.inference",
    "evaluate": "vidprune.runs",
    "sweep": "vidprune.runs",
    "EvaluateConfig": "vidprune.config",
    "SweepConfig": "vidprune.config",
    "SweepGrid": "vidprune.config",
    "ModelConfig": "vidprune.config",
    "ProposalConfig": "vidprune.config",
    "RunConfig": "vidprune.config",
    "flops": "vidprune.profiling.flops",
    "ViewPlan": "vidprune.video",
    "read_frames": "vidprune.video",
    "read_video": "vidprune.video",
    "class_names": "vidprune.labels",
    "demo_file": "vidprune.config",
    "TokenGrid": "vidprune.types",
    "VideoFrames": "vidprune.types",
    "VideoPrediction": "vidprune.types",
    "VidpruneError": "vidprune.errors",
}

if TYPE_CHECKING:  # so that editors and type checkers see the names that __getattr__ resolves
    from vidprune.config import EvaluateConfig as EvaluateConfig
    from vidprune.config import ModelConfig as ModelConfig
    from vidprune.config import ProposalConfig as ProposalConfig
    from vidprune.config import RunConfig as RunConfig
    from vidprune.config import SweepConfig as SweepConfig
    from vidprune.config import SweepGrid as SweepGrid
    from vidprune.config import demo_file as demo_file
    from vidprune.errors import VidpruneError as VidpruneError
    from vidprune.hierarchical import PrunedHierarchical as PrunedHierarchical
    from vidprune.inference import predict_video as predict_video
    from vidprune.labels import class_names as class_names
    from vidprune.models import create_model as create_model
    from vidprune.models import load_model as load_model
    from vidprune.models.frame_batch import FrameBatch as FrameBatch
    from vidprune.profiling.flops import flops as flops
    from vidprune.proposals import create_proposal as create_proposal
    from vidprune.pruners.ats import ATS as ATS
    from vidprune.pruners.calibration import Calibration as Calibration
    from vidprune.pruners.controls import Centre as Centre
    from vidprune.pruners.controls import FrameDifference as FrameDifference
    from vidprune.pruners.controls import Norm as Norm
    from vidprune.pruners.controls import Random as Random
    from vidprune.pruners.controls import Uniform as Uniform
    from vidprune.pruners.diffrate import DiffRate as DiffRate
    from vidprune.pruners.etps import ETPS as ETPS
    from vidprune.pruners.evit import EViT as EViT
    from vidprune.pruners.gtp import GTP as GTP
    from vidprune.pruners.papr import PaPr as PaPr
    from vidprune.pruners.rlt import RLT as RLT
    from vidprune.pruners.sta import STA as STA
    from vidprune.pruners.star import STAR as STAR
    from vidprune.pruners.star import AdaptiveSTAR as AdaptiveSTAR
    from vidprune.pruners.tofu import ToFu as ToFu
    from vidprune.pruners.tome import ToMe as ToMe
    from vidprune.pruning import PrunedViT as PrunedViT
    from vidprune.pruning import prune as prune
    from vidprune.runs import evaluate as evaluate
    from vidprune.runs import sweep as sweep
    from vidprune.types import TokenGrid as TokenGrid
    from vidprune.types import VideoFrames as VideoFrames
    from vidprune.types import VideoPrediction as VideoPrediction
    from vidprune.video import ViewPlan as ViewPlan
    from vidprune.video import read_frames as read_frames
    from vidprune.video import read_video as read_video

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'vidprune' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
