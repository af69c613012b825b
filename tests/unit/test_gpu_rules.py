"""What forward passes must hold so that a GPU runs them without waiting, checked where no GPU is.

One device throughout; results on it, in the model's dtype; no copy from the host; no value read, but by the methods
whose counts depend on the input, and by those as often as said here; and no write into the input. That is also what a
CUDA graph needs. Whether a kernel exists on a GPU, and how fast it is, only a GPU can tell.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.gpu_stand_in import CPU, CUDA, GPUTensor, stand_in_gpu
from tests.hosts import IMAGE_HOSTS, make_host, pixels_for
from tests.stage_hosts import STAGE_HOSTS, make_stage_host
from tests.unit.test_pruners_all import COMPILED_ELSEWHERE, ROWS
from vidprune.calibration import calibrate
from vidprune.models.frame_batch import FrameBatch
from vidprune.proposals import PROPOSALS, create_proposal
from vidprune.proposals.base import VideoProposal
from vidprune.proposals.shared_crops import SharedCrops
from vidprune.pruners.calibration import Calibration
from vidprune.pruners.controls import Centre, Random
from vidprune.pruners.papr import PaPr
from vidprune.pruners.star import STAR, AdaptiveSTAR
from vidprune.pruners.tome import ToMe
from vidprune.pruning import host_info, prune
from vidprune.types import TokenGrid, VideoFrames
from vidprune.video import ViewPlan
from vidprune.video.views import whole_clips

# How often a forward pass waits for a value, on hosts of 3 blocks: to learn counts, once per choice for all samples.
READS = {
    "ats": 3,
    "random, then ats": 3,
    "rlt": 1,
    "rlt, then ats": 2,  # ats in one block
    "papr, mass": 1,
    "adaptive_star": 2,  # the first block keeps all
}


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a result: inside tuples, lists and dataclasses."""
    if isinstance(value, Tensor):
        return [value]
    if dataclasses.is_dataclass(value):
        value = [getattr(value, field.name) for field in dataclasses.fields(value)]
    return [found for item in value for found in tensors_in(item)] if isinstance(value, tuple | list) else []


def run_on_gpu(
    module: nn.Module, call: Callable[..., Any], *inputs: Tensor, reads: int = 0, dtype: torch.dtype = torch.float32
) -> Any:
    """What `call(module, *inputs)` gives on the GPU, brought back to the CPU, once the rules have held.

    The module stays on the GPU.
    """
    with stand_in_gpu() as gpu, torch.no_grad():
        module.to(CUDA, dtype)
        moved = [tensor.to(CUDA, dtype) for tensor in inputs]
        gpu.forget()
        result = call(module, *moved)
        gpu_reads = dict(gpu.reads)
        assert all(isinstance(tensor, GPUTensor) for tensor in tensors_in(result))
        assert not gpu.uploads, "copies from the host"
        assert not gpu.on_cpu, "work on the CPU"
        assert not gpu.unsafe
        assert gpu.reads.total() == reads, gpu_reads
        for tensor, before in zip(moved, inputs, strict=True):
            assert torch.equal(tensor.value, before.to(dtype)), "an input was written over"
    return on_cpu(result)


def on_cpu(value: Any) -> Any:
    if isinstance(value, GPUTensor):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: on_cpu(getattr(value, field.name)) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **fields)
    return type(value)(on_cpu(item) for item in value) if isinstance(value, tuple | list) else value


def with_trace(model: Any, *inputs: Tensor) -> Any:
    return model.forward_with_trace(*inputs)


def check_model(model: Any, *inputs: Tensor, reads: int = 0, half: bool = True) -> None:
    """`model` on the GPU keeps what it keeps on the CPU, and gives its logits; in half precision, its dtype."""
    with torch.no_grad():
        expected, trace = model.forward_with_trace(*inputs)
    logits, gpu_trace = run_on_gpu(model, with_trace, *inputs, reads=reads)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    for found, wanted in zip(tensors_in(gpu_trace.kept_index), tensors_in(trace.kept_index), strict=True):
        assert torch.equal(found, wanted)
    if not half:
        return
    logits, _ = run_on_gpu(model, with_trace, *inputs, reads=reads, dtype=torch.bfloat16)
    assert logits.dtype == torch.bfloat16
    assert logits.isfinite().all()


# What the stand-in must notice, each on a tensor x [2, 3] on the GPU: what the notice is, and what it is about.
NOTICED: dict[str, tuple[str, Callable[[Tensor], object]]] = {
    "a tensor of constants": ("uploads", lambda x: x + torch.tensor([1.0, 2.0, 3.0], device=x.device)),
    "one like another": ("uploads", lambda x: x.new_tensor([1.0])),
    "an array": ("uploads", lambda x: torch.from_numpy(np.ones(3)).to(x.device)),
    "a copy into place": ("uploads", lambda x: x.clone().copy_(torch.ones(2, 3))),
    "a list as an index": ("uploads", lambda x: x[:, [0, 2]]),
    "an index on the CPU": ("uploads", lambda x: x[:, torch.arange(2)]),
    "a number": ("reads", lambda x: float(x.sum())),
    "a condition": ("reads", lambda x: bool((x > 0).any())),
    "a list": ("reads", lambda x: x.tolist()),
    "a copy to the CPU": ("reads", lambda x: x.cpu()),
    "a copy into the CPU": ("reads", lambda x: torch.empty(2, 3).copy_(x)),
    "a mask": ("reads", lambda x: x[x > 0]),
    "places": ("reads", lambda x: (x > 0).nonzero()),
    "distinct values": ("reads", lambda x: x.unique()),
    "equality": ("reads", lambda x: torch.equal(x, x)),
    "a number on the GPU as an index": ("reads", lambda x: x[:, x.argmax() % 3]),
    "repeats": ("reads", lambda x: x[0].repeat_interleave(torch.ones(3, dtype=torch.int64, device=x.device))),
    "work on the CPU": ("on_cpu", lambda x: torch.arange(3)),
    "a number on the CPU": ("on_cpu", lambda x: x + torch.tensor(1.0)),
}
REFUSED: dict[str, Callable[[Tensor], object]] = {
    "same device": lambda x: x + torch.ones(2, 3),
    "indexed tensor": lambda x: torch.ones(5)[x.long()],
    "generator": lambda x: torch.rand(2, device=x.device, generator=torch.Generator()),
    "integers": lambda x: x.long() @ x.long().T,
    "numpy": lambda x: x.numpy(),
}


@pytest.mark.parametrize("name", NOTICED)
def test_the_stand_in_notices(name: str) -> None:
    what, act = NOTICED[name]
    with stand_in_gpu() as gpu, torch.no_grad():
        x = torch.ones(2, 3).to("cuda")
        assert (x.device, x.is_cuda, gpu.uploads.total()) == (CUDA, True, 1)
        gpu.forget()
        act(x)
        assert getattr(gpu, what).total() >= 1
        gpu.forget()
        doubled = torch.where(x > 0, x * 2, -1.0).cumsum(dim=1) + torch.arange(3, device=x.device)
        assert not any((gpu.reads, gpu.uploads, gpu.on_cpu, gpu.unsafe))
    assert torch.equal(doubled.value, torch.tensor([[2.0, 5.0, 8.0]] * 2))


@pytest.mark.parametrize("name", REFUSED)
def test_the_stand_in_refuses(name: str) -> None:
    with stand_in_gpu(), torch.no_grad():
        x = torch.ones(2, 3).to("cuda")
        with pytest.raises((RuntimeError, TypeError), match=name):
            REFUSED[name](x)


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("host_name", ["VideoMAE", "class token"])
def test_methods(name: str, host_name: str) -> None:
    row = ROWS[name]
    if host_name != "VideoMAE" and not row.images:
        pytest.skip("runs on video alone")
    if host_name != "VideoMAE" and name in COMPILED_ELSEWHERE - {"diffrate"}:
        pytest.skip("runs the same code as another row")
    model = prune(make_host(host_name), row.make(row.strengths[1]))
    assert (name in READS) == row.ragged
    check_model(model, pixels_for(model.host, batch=3), reads=READS.get(name, 0), half=host_name == "VideoMAE")


@pytest.mark.parametrize("host_name", [*IMAGE_HOSTS, "distilled", "plain attention"])
def test_hosts(host_name: str) -> None:
    model = prune(make_host(host_name), [Centre(0.6), ToMe(2, start_block=1)])
    check_model(model, pixels_for(model.host), half=False)


def test_hosts_of_dynamic_size_at_another_size() -> None:
    check_model(prune(make_host("dynamic size"), Centre(0.6)), torch.randn(2, 3, 40, 48))


@pytest.mark.parametrize("embed_kept", [True, False])
@pytest.mark.parametrize("given", [True, False])
def test_a_proposal_or_a_map_in_its_place(given: bool, embed_kept: bool) -> None:
    model = prune(make_host("VideoMAE"), PaPr(0.5, proposal="frame_difference"), embed_kept=embed_kept)
    pixels = pixels_for(model.host)
    maps = [torch.rand(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))] if given else []
    check_model(model, pixels, *maps)


@pytest.mark.parametrize("method", [STAR, AdaptiveSTAR])
def test_a_calibration(method: type[STAR]) -> None:
    host = make_host("VideoMAE")
    inter = np.random.default_rng(0).random((3, 64))
    calibration = Calibration(inter, np.linspace(0.1, 0.5, 3), host_info(host).grid)
    model = prune(host, method(0.5, calibration=calibration))
    check_model(model, pixels_for(host), reads=2 if method is AdaptiveSTAR else 0)


FRAME_BATCHES: dict[str, tuple[dict[str, Any], Any, int]] = {
    "frame difference": ({}, PaPr(0.5, proposal="frame_difference"), 0),
    "a video network": ({"average": "probs"}, PaPr(0.5, proposal="x3d_tiny"), 0),
    "inside blocks": ({}, ToMe(2), 0),
    "one budget": ({"budget": "clip"}, Random(0.5), 1),
    "one budget, then ats": ({"budget": "clip"}, [Random(0.7), ROWS["ats"].make(0.6)], 4),
}


@pytest.mark.parametrize("name", FRAME_BATCHES)
def test_frame_batches(name: str) -> None:
    options, method, reads = FRAME_BATCHES[name]
    host = make_host("class token")
    host.pretrained_cfg = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # so that frames are re-normalised
    model = prune(FrameBatch(host, frames_per_clip=4, **options), method)
    check_model(model, torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0)), reads=reads)


@pytest.mark.parametrize("name", STAGE_HOSTS)
def test_hosts_with_stages(name: str) -> None:
    model = prune(make_stage_host(name), Centre(0.5))
    pixels = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    check_model(model, pixels, half=name in ("ConvNeXt", "Swin", "Swin V2"))


PRUNED_THERE: dict[str, Callable[[], nn.Module]] = {
    "a network": lambda: prune(gpu_host("VideoMAE"), PaPr(0.5, proposal="timm:resnet18"), self_check=False),
    "a calibration": lambda: prune(
        gpu_host("VideoMAE"),
        STAR(0.5, calibration=Calibration(np.ones((3, 64)), np.linspace(0.1, 0.5, 3), TokenGrid(4, 4, 4))),
        self_check=False,
    ),
    "frames": lambda: prune(
        FrameBatch(gpu_host("class token"), frames_per_clip=8), PaPr(0.5, proposal="timm:resnet18"), self_check=False
    ),
    "stages": lambda: prune(
        make_stage_host("ConvNeXt").to(CUDA), PaPr(0.5, proposal="timm:resnet18"), self_check=False
    ),
}


def gpu_host(name: str) -> Any:
    return make_host(name).to(CUDA)


@pytest.mark.parametrize("name", PRUNED_THERE)
def test_a_host_that_is_on_the_gpu_already(name: str) -> None:
    """What a method brings with it goes where its host is."""
    side = {"frames": 32, "stages": 64}.get(name, 64)
    pixels = torch.randn(2, 3, 64, 64) if name == "stages" else torch.randn(2, 3, 8, side, side)
    with stand_in_gpu() as gpu, torch.no_grad():
        model = PRUNED_THERE[name]()
        pixels = pixels.to(CUDA)
        gpu.forget()
        assert isinstance(model(pixels), GPUTensor)
        assert not any((gpu.reads, gpu.uploads, gpu.on_cpu))


@pytest.mark.parametrize("method", ["rollout", "lrp"])
def test_calibrating(method: str) -> None:
    host = make_host("class token")
    pixels = pixels_for(host)
    expected = calibrate(host, [pixels], method=method, num_classes=2)
    with stand_in_gpu() as gpu:
        host, pixels = host.to(CUDA), pixels.to(CUDA)
        gpu.forget()
        found = calibrate(host, [pixels], method=method, num_classes=2)
        assert (gpu.reads.total(), gpu.uploads.total()) == (2, 0)  # what is summed up goes to the CPU
    np.testing.assert_allclose(found.inter, expected.inter, rtol=1e-5)
    np.testing.assert_allclose(found.similarity, expected.similarity, rtol=1e-5)


# Of proposals that run the same code on networks of other sizes, one is here.
SAME_CODE = {"x3d_m": "x3d_s", "slowonly_r50": "x3d_s", "slowonly_r101": "x3d_s", "resnet50": "resnet18"}
PROPOSAL_OPTIONS: dict[str, dict[str, Any]] = {
    "x3d_s": {"input_treatment": "own_norm"},
    "x3d_tiny": {},
    "mobileone_s0": {},
    "resnet18": {"input_treatment": "own_norm"},
    "efficientnet_lite0": {},
    "timm": {"net": "repvgg_a0"},
    "cam": {"net": "resnet18"},
    "fc_weighted": {"net": "resnet18"},
    "gradcam": {"net": "resnet18"},
    "scorecam": {"net": "x3d_tiny", "num_channels": 2},
    "random": {},
    "uniform": {},
    "centre": {},
    "frame_difference": {},
}


@pytest.mark.parametrize("name", PROPOSAL_OPTIONS)
def test_proposals(name: str) -> None:
    proposal = create_proposal(name, **PROPOSAL_OPTIONS[name])
    clip = torch.randn(2, 3, 4, 64, 64, generator=torch.Generator().manual_seed(0))

    def ask(module: nn.Module, pixels: Tensor) -> Tensor:
        return module(pixels, grid=TokenGrid(2, 4, 4))

    with torch.no_grad():
        expected = ask(proposal, clip)
    found = run_on_gpu(proposal, ask, clip)
    torch.testing.assert_close(found, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)


def test_every_proposal_is_here() -> None:
    assert set(PROPOSALS.names()) == {*PROPOSAL_OPTIONS, *SAME_CODE, "codec_motion"}  # which has a test of its own
    assert set(SAME_CODE.values()) <= set(PROPOSAL_OPTIONS)


def made_up_video() -> VideoFrames:
    generator = np.random.default_rng(0)
    frames = generator.integers(0, 256, (16, 64, 96, 3), dtype=np.uint8)
    numbers = np.arange(16)
    motion = generator.normal(size=(16, 4, 6, 2)).astype(np.float32)
    return VideoFrames(frames, numbers, 16, 0, 0, np.zeros(16, bool), 25.0, (64, 96), "made up", motion)


@pytest.mark.parametrize("name", ["codec_motion", "shared crops"])
def test_maps_of_whole_videos_upload_no_more_than_the_video(name: str) -> None:
    video = made_up_video()
    plan = ViewPlan(num_frames=8, num_segments=1, num_crops=3, short_side=64, crop_size=64)
    proposal = create_proposal("codec_motion") if name == "codec_motion" else SharedCrops(create_proposal("x3d_tiny"))
    assert isinstance(proposal, VideoProposal)
    place = {"grid": TokenGrid(4, 4, 4), "dtype": torch.float32}
    with torch.no_grad(), stand_in_gpu() as gpu:
        expected = proposal.view_maps(video, plan, device=CPU, **place)
        proposal = proposal.to(CUDA)
        gpu.forget()
        if name == "shared crops":
            whole_clips(video, plan, device=CUDA, dtype=torch.float32)
            clips, _ = gpu.uploads.total(), gpu.forget()
        else:
            clips = 1  # the maps themselves, which come from the file
        maps = proposal.view_maps(video, plan, device=CUDA, **place)
        assert isinstance(maps, GPUTensor)
        assert (gpu.uploads.total(), gpu.reads.total()) == (clips, 0)
    torch.testing.assert_close(maps.value, expected, atol=1e-4 * float(expected.abs().max()), rtol=0)
