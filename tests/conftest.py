"""Settings that must be in place before torch starts, and the skips that several test files share."""

from __future__ import annotations

import os
from pathlib import Path

# oneDNN's AMX kernels raise SIGILL under some hypervisors that advertise AMX without letting guests use it.
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
REAL_VIDEOS = REPOSITORY.parent / "shared" / "data" / "videos"


@pytest.fixture(scope="session", autouse=True)
def _one_thread_per_worker() -> None:
    import torch

    if os.environ.get("PYTEST_XDIST_WORKER"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def real_videos() -> Path:
    """Folder of real clips beside the checkout; tests that need it skip where it is absent."""
    if not REAL_VIDEOS.is_dir():
        pytest.skip(f"no real clips at {REAL_VIDEOS}")
    return REAL_VIDEOS


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Tests marked `gpu` are skipped where there is none, or fail if there ought to be one."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        (pytest.fail if os.environ.get("VIDPRUNE_REQUIRE_GPU") == "1" else pytest.skip)("no CUDA device")
