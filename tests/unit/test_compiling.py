"""Compiled models: one graph per batch size that needs one, the same results, and the model itself left alone."""

from __future__ import annotations

import logging
import types
from pathlib import Path

import numpy as np
import pytest
import torch
import torch._dynamo.testing
import torch._dynamo.utils
from functorch.compile import make_boxed_func
from torch import Tensor, nn

from tests.evaluations import evaluate, tiny_model
from tests.hosts import make_host, pixels_for
from vidprune.compiling import CompiledForward, _copied, compile_model, is_compiled
from vidprune.config import RunConfig, parse_config
from vidprune.config.building import build_model
from vidprune.errors import UnsupportedModelError
from vidprune.inference import run_views
from vidprune.models.frame_batch import FrameBatch
from vidprune.proposals.nets3d import IMAGENET, NetProposal, NetSpec
from vidprune.pruners.ats import ATS
from vidprune.pruners.controls import Random
from vidprune.pruners.papr import PaPr
from vidprune.pruners.tome import ToMe
from vidprune.pruning import PrunedViT, prune
from vidprune.tokens.moves import Move

Counter = torch._dynamo.testing.CompileCounter


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def graph_breaks() -> int:
    return sum(torch._dynamo.utils.counters["graph_break"].values())


def clip_model(kind: str) -> tuple[nn.Module, Tensor]:
    """A model for clips, and three of them."""
    if kind == "frames":
        model = prune(FrameBatch(make_host("class token"), frames_per_clip=4), ToMe(2))
        return model, torch.randn(3, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    host = make_host("VideoMAE")
    methods = {
        "proposal": PaPr(keep_ratio=0.5, proposal="frame_difference"),
        "chain": [Random(0.5), ToMe(2, start_block=1)],
    }
    return host if kind == "dense" else prune(host, methods[kind]), pixels_for(host, batch=3)


@pytest.mark.parametrize("kind", ["dense", "proposal", "chain", "frames"])
def test_one_graph_for_full_batches_and_none_for_the_last_smaller_one(kind: str) -> None:
    model, clips = clip_model(kind)
    counter = Counter()
    compiled = compile_model(model, backend=counter)
    for part in (clips, clips, clips[:1], clips[:2], clips):
        (expected, expected_trace), (logits, trace) = run_views(model, part), run_views(compiled, part)
        torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
        assert (trace is None) == (expected_trace is None)
        if trace is not None and expected_trace is not None:
            assert torch.equal(trace.kept_index, expected_trace.kept_index)
            assert trace.token_counts == expected_trace.token_counts
    assert (counter.frame_count, graph_breaks()) == (1, 0)
    assert is_compiled(compiled)
    assert not is_compiled(model), "the model that was given stays as it is"
    assert {id(p) for p in compiled.parameters()} == {id(p) for p in model.parameters()}


def test_autograd_s_tracing_takes_the_graph_too() -> None:
    model, clips = clip_model("proposal")
    expected, _ = run_views(model, clips)
    logits, _ = run_views(compile_model(model, backend="aot_eager"), clips)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)


def test_a_given_map_takes_the_proposal_s_place() -> None:
    model, clips = clip_model("proposal")
    maps = torch.rand(3, 4, 4, 4, generator=torch.Generator().manual_seed(1))
    _, expected = run_views(model, clips, maps)
    _, trace = run_views(compile_model(model, backend="eager"), clips, maps)
    assert torch.equal(trace.kept_index, expected.kept_index)


def test_a_network_s_choice_is_never_read_by_the_host() -> None:
    """Tensors without values refuse every read, so on a GPU nothing waits between the proposal and the head."""
    model = prune(make_host("VideoMAE"), PaPr(keep_ratio=0.5, proposal="x3d_tiny")).to("meta")
    logits, trace = run_views(model, torch.empty(2, 3, 8, 64, 64, device="meta"))
    assert logits.shape == (2, 7)
    assert trace.kept_index.shape == (2, 32)


def test_a_larger_batch_is_compiled_anew_and_then_sets_the_size() -> None:
    model, clips = clip_model("chain")
    counter = Counter()
    compiled = compile_model(model, backend=counter)
    for size, graphs in ((1, 1), (3, 2), (1, 2), (2, 2), (3, 2)):
        run_views(compiled, clips[:size])
        assert counter.frame_count == graphs


def test_after_running_out_of_memory_the_next_batch_sets_the_size() -> None:
    sizes = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        def run(*args: Tensor) -> object:
            sizes.append(args[0].shape[0])
            if args[0].shape[0] > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return graph(*args)

        return run

    forward = CompiledForward(lambda pixels: pixels * 2, backend=backend, graphs=False)
    with pytest.raises(torch.OutOfMemoryError):
        forward(torch.ones(8, 1))
    for size in (4, 2, 4):
        assert torch.equal(forward(torch.ones(size, 1)), torch.full((size, 1), 2.0))
    assert sizes == [8, 4, 4], "2 ran uncompiled"


def test_where_counts_depend_on_the_input_nothing_is_compiled(caplog: pytest.LogCaptureFixture) -> None:
    model = prune(make_host("VideoMAE"), [Random(0.5), ATS(0.5)])
    with caplog.at_level(logging.WARNING):
        assert compile_model(model, backend="eager") is model
    assert caplog.messages == ["not compiled: the number of tokens that random, ats keeps depends on the input"]


class Scaled(nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, pixels: Tensor) -> Tensor:
        return pixels * self.factor


def test_every_model_of_a_sweep_is_compiled() -> None:
    """All share one method; by itself PyTorch would run the ninth model and all after it uncompiled."""
    counter, pixels = Counter(), torch.ones(2, 3)
    models = [Scaled(factor) for factor in range(torch._dynamo.config.recompile_limit + 2)]
    compiled = [CompiledForward(model.forward, backend=counter, graphs=False) for model in models]
    for _ in range(2):
        for factor, forward in enumerate(compiled):
            assert torch.equal(forward(pixels), pixels * factor)
    assert counter.frame_count == len(models)


def test_only_the_clips_change_their_address() -> None:
    """All weights are known to stay where they are: a CUDA graph reads them in place and copies the clips alone."""
    from torch._dynamo.backends.common import aot_autograd

    copied: list[tuple[int, ...]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        static = torch._guards.TracingContext.get().fw_metadata.static_input_indices
        copied.extend(tuple(value.shape) for index, value in enumerate(inputs) if index not in static)
        return make_boxed_func(graph.forward)

    def network() -> nn.Module:
        return nn.Sequential(nn.Conv3d(3, 4, 3, padding=1, bias=False), nn.BatchNorm3d(4), nn.ReLU())

    net = NetProposal(NetSpec("small", network, lambda size: size, {"pytorchvideo": IMAGENET}))  # runs its folded copy
    host = make_host("VideoMAE", depth=1)
    model = prune(host, PaPr(keep_ratio=0.5, proposal=net))
    compiled = compile_model(model, backend=aot_autograd(fw_compiler=backend, inference_compiler=backend))
    run_views(compiled, pixels_for(host, batch=3))
    assert copied == [(3, 3, 8, 64, 64)]


@pytest.mark.parametrize("in_compiler", [True, False])
def test_out_of_memory_in_the_compiler_is_out_of_memory(in_compiler: bool) -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        if in_compiler and len(inputs[0]) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return graph.forward

    forward = CompiledForward(lambda pixels: pixels * 2, backend=backend, graphs=False)
    if in_compiler:
        with pytest.raises(torch.OutOfMemoryError):
            forward(torch.ones(3, 1))
    assert torch.equal(forward(torch.ones(2, 1)), torch.full((2, 1), 2.0))
    assert forward.batch == 2


@pytest.mark.parametrize("error", ["TritonMissing", "GPUTooOldForTriton"])
def test_no_triton_is_one_line(error: str) -> None:
    from torch._inductor import exc

    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        device = types.SimpleNamespace(name="GTX 1080", major=6, minor=1)
        raise exc.TritonMissing(None) if error == "TritonMissing" else exc.GPUTooOldForTriton(device, None)

    with pytest.raises(
        UnsupportedModelError, match=r"^this model cannot be compiled here: [^\n]*run it without compile$"
    ):
        CompiledForward(lambda pixels: pixels * 2, backend=backend, graphs=False)(torch.ones(2, 1))


def test_a_compiler_that_fails_is_one_line() -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> object:
        raise RuntimeError("no working C++ compiler")

    model, clips = clip_model("proposal")
    with pytest.raises(
        UnsupportedModelError, match=r"^this model cannot be compiled here: [^\n]*run it without compile$"
    ):
        run_views(compile_model(model, backend=backend), clips)


def test_results_of_a_cuda_graph_are_copied_whole() -> None:
    moves = (Move(torch.arange(3)), Move(torch.arange(2), torch.arange(1), torch.arange(1)))
    value = (torch.ones(2), [(moves[0], (1, "a")), (moves[1], None)])
    copied = _copied(value)
    assert torch.equal(copied[0], value[0])
    assert copied[0].data_ptr() != value[0].data_ptr()
    assert copied[1][0][1] == (1, "a")
    assert isinstance(copied[1][1][0], Move)
    for name in ("kept", "joined", "host"):
        new, old = getattr(copied[1][1][0], name), getattr(moves[1], name)
        assert torch.equal(new, old)
        assert new.data_ptr() != old.data_ptr()


def test_an_evaluation_compiles_once_for_all_its_videos(tmp_path: Path) -> None:
    """Six views a video, four a batch: the batches of two run uncompiled."""
    names, counter = [f"v{i}" for i in range(4)], Counter()
    compiled = compile_model(tiny_model(), backend=counter)
    plain = evaluate(tmp_path / "plain", names, views_per_batch=4).table()
    fast = evaluate(tmp_path / "compiled", names, model=compiled, views_per_batch=4).table()
    assert counter.frame_count == 1
    assert fast["num_kept"].equals(plain["num_kept"])
    np.testing.assert_allclose(
        np.array(fast["view_logits"].to_pylist()), np.array(plain["view_logits"].to_pylist()), atol=1e-5
    )


def test_the_config_compiles() -> None:
    config = parse_config({"model": {"name": "demo"}, "method": {"name": "random", "keep_ratio": 0.5}, "device": "cpu"})
    assert config.compile is False
    assert not is_compiled(build_model(config))
    model = build_model(parse_config({"model": {"name": "demo"}, "compile": True, "device": "cpu"}))
    assert is_compiled(model)
    assert RunConfig(compile=True).compile


@pytest.mark.gpu
def test_on_a_gpu_one_cuda_graph_gives_the_same_and_results_stay() -> None:
    model, clips = clip_model("chain")
    assert isinstance(model, PrunedViT)
    model, clips = model.cuda(), clips.cuda()
    compiled = compile_model(model)
    expected = [run_views(model, part)[0] for part in (clips, clips.flip(0), clips[:1], clips)]
    results = [run_views(compiled, part)[0] for part in (clips, clips.flip(0), clips[:1], clips)]
    for logits, other in zip(results, expected, strict=True):
        torch.testing.assert_close(logits, other, atol=1e-3, rtol=0)
