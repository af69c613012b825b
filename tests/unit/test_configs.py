"""Every shipped config is read, and built with random weights in place of the files it names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from vidprune.config import DEMO, build_method, build_views, load_config
from vidprune.models import create_model
from vidprune.pruning import prune

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_a_shipped_config_builds(path: Path) -> None:
    config = load_config(path)
    method = {k: v for k, v in config.method.items() if k != "proposal_checkpoint"}
    model = config.model if config.model.name == DEMO else dataclasses.replace(config.model, checkpoint=None)
    with torch.device("meta"):
        host = create_model("videomae_tiny" if model.name == DEMO else model.name)
    pruned = prune(host, build_method(method, model), self_check=False)
    assert 0 < pruned.num_kept() < pruned.token_grid.num_tokens
    plan = build_views(config, pruned)
    assert plan.num_views == 15
    assert plan.num_frames == host.spec.num_frames


def test_there_are_configs() -> None:
    assert len(CONFIGS) >= 3
