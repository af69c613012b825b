"""A real GPU gives what the CPU gives, and its host waits for nothing. Skipped where there is none.

`tests/gpu_stand_in.py` shows the second without a GPU; the first only a GPU can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.decoders import PLAN, made_up
from tests.evaluations import evaluate, tiny_model
from tests.hosts import make_host, pixels_for
from tests.unit.test_pruners_all import ROWS, Row
from vidprune.compiling import compile_model
from vidprune.proposals import create_proposal
from vidprune.pruners.papr import PaPr
from vidprune.pruning import prune
from vidprune.types import TokenGrid
from vidprune.video import cut_views

pytestmark = pytest.mark.gpu
each_row = pytest.mark.parametrize("row", ROWS.values(), ids=ROWS.keys())


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """TensorFloat-32 would hide mistakes of the size of its rounding."""
    allowed = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = allowed


@each_row
@pytest.mark.parametrize("host_name", ["class token", "VideoMAE"])
def test_every_method_gives_what_it_gives_on_the_cpu(row: Row, host_name: str) -> None:
    if host_name != "VideoMAE" and not row.images:
        pytest.skip("runs on video alone")
    pruned = prune(make_host(host_name), row.make(row.strengths[1]))
    pixels = pixels_for(pruned.host)
    with torch.inference_mode():
        expected, trace = pruned.forward_with_trace(pixels)
        found, found_trace = pruned.cuda().forward_with_trace(pixels.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=0, atol=1e-3)
    if trace.kept_index is not None:
        assert torch.equal(found_trace.kept_index.cpu(), trace.kept_index)


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.ragged])
def test_the_host_waits_for_nothing(name: str) -> None:
    row = ROWS[name]
    pruned = prune(make_host("VideoMAE"), row.make(row.strengths[1])).cuda()
    pixels = pixels_for(pruned.host).cuda()
    with torch.inference_mode():
        pruned(pixels)  # the first call may set kernels up
        torch.cuda.set_sync_debug_mode("error")
        try:
            pruned(pixels)
        finally:
            torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("treatment", ["release", "native"])
@pytest.mark.parametrize("name", ["x3d_s", "x3d_tiny", "slowonly_r50"])
def test_proposal_networks_give_the_same_maps(name: str, treatment: str) -> None:
    proposal = create_proposal(name, input_treatment=treatment)
    clip = torch.randn(2, 3, 8, 96, 96, generator=torch.Generator().manual_seed(0))
    grid = TokenGrid(4, 6, 6)
    with torch.inference_mode():
        expected = proposal(clip, grid=grid)
        found = proposal.cuda()(clip.cuda(), grid=grid).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_views_are_those_of_the_cpu(dtype: torch.dtype) -> None:
    video = made_up("v0")
    expected = cut_views(video, PLAN, dtype=dtype)
    found = cut_views(video, PLAN, device="cuda", dtype=dtype)
    torch.testing.assert_close(
        found.cpu().float(), expected.float(), rtol=0, atol=1e-6 if dtype.itemsize == 4 else 0.02
    )


def test_views_are_cut_without_waiting() -> None:
    from vidprune.video.upload import Uploader

    uploaded = Uploader(torch.device("cuda", 0))(made_up("v0"))
    cut_views(uploaded, PLAN, device="cuda:0")
    torch.cuda.set_sync_debug_mode("error")
    try:
        cut_views(uploaded, PLAN, device="cuda:0")
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_an_evaluation_predicts_what_it_predicts_on_the_cpu(tmp_path: Path) -> None:
    names = ["v0", "v1", "unreadable", "v3", "v4"]
    expected = evaluate(tmp_path / "cpu", names, model=tiny_model()).table()
    found = evaluate(tmp_path / "cuda", names, model=tiny_model().cuda(), workers=1).table().sort_by("position")
    for ours, theirs in zip(found["view_logits"].to_pylist(), expected["view_logits"].to_pylist(), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3)
    assert found["num_kept"].equals(expected["num_kept"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cuda_graph_gives_the_same_as_the_plain_pass(dtype: torch.dtype) -> None:
    pruned = prune(make_host("VideoMAE"), PaPr(0.5, proposal="x3d_tiny")).to("cuda", dtype)
    compiled = compile_model(pruned)
    batches = [pixels_for(pruned.host, batch=3).roll(shift, 0).to("cuda", dtype) for shift in range(4)]
    with torch.inference_mode():
        expected = [pruned(pixels) for pixels in batches]
        found = [compiled(pixels) for pixels in batches]  # kept until the end: a graph must not write over them
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=tolerance * float(theirs.abs().max()))
