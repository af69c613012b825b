"""Uploads ahead of time: started where a decoded video waits, waited for where it is used, and no bit changes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.decoders import PLAN, made_up, made_up_planes
from tests.evaluations import evaluate, tiny_model
from vidprune.evaluation.decoding import decode_all
from vidprune.evaluation.runner import RunnerSettings, uploader_for
from vidprune.types import VideoFrames
from vidprune.video import cut_views
from vidprune.video.upload import UploadedFrames, Uploader, frames_on

NAMES = [f"v{i}" for i in range(6)]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is asked of CUDA, in order, with the CPU in its place."""
    calls: list[str] = []

    class Stream:
        def __init__(self, device: torch.device | None = None) -> None:
            self.name = "side" if device is not None else "current"

        def record_event(self) -> str:
            calls.append(f"event recorded on {self.name}")
            return "event"

        def wait_event(self, event: str) -> None:
            calls.append(f"{self.name} waits for {event}")

    @contextlib.contextmanager
    def on_stream(stream: Stream) -> Iterator[None]:
        calls.append(f"enter {stream.name}")
        yield
        calls.append(f"leave {stream.name}")

    def pin(tensor: torch.Tensor) -> torch.Tensor:
        calls.append("pinned")
        return tensor.clone()

    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: calls.append(f"kept for {stream.name}"))
    return calls


@pytest.mark.parametrize("make", [made_up, made_up_planes])
def test_the_copy_is_queued_beside_and_the_reader_s_stream_waits(
    calls: list[str], make: Callable[[str], VideoFrames]
) -> None:
    video = make("v0")
    uploaded = Uploader(torch.device("cpu"))(video)
    assert calls == ["pinned", "enter side", "event recorded on side", "leave side"]
    calls.clear()
    pixels = frames_on(uploaded, "cpu")
    assert calls == ["current waits for event", "kept for current"]
    np.testing.assert_array_equal(pixels.numpy(), video.frames)
    assert torch.equal(cut_views(uploaded, PLAN), cut_views(video, PLAN))


def test_a_device_without_room_gets_the_frames_later(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    video, upload = made_up("v0"), Uploader(torch.device("cpu"))
    monkeypatch.setattr(torch.Tensor, "to", full)
    assert upload(video) is video


def test_frames_uploaded_elsewhere_are_uploaded_again(calls: list[str]) -> None:
    uploaded = Uploader(torch.device("cpu"))(made_up("v0"))
    calls.clear()
    assert frames_on(uploaded, "meta").device.type == "meta"
    assert calls == []


def test_nothing_is_uploaded_on_a_cpu_or_when_told_so() -> None:
    assert uploader_for(tiny_model(), RunnerSettings()) is None
    meta = tiny_model().to("meta")
    assert uploader_for(meta, RunnerSettings(prefetch=False)) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_every_decoded_video_is_prepared_once_before_it_waits(workers: int) -> None:
    seen: list[str] = []

    def prepare(video: VideoFrames) -> VideoFrames:
        seen.append(threading.current_thread().name)
        return video

    jobs = [(0, "v0"), (1, "unreadable"), (2, "v2")]
    items = list(decode_all(made_up, jobs, workers=workers, timeout_s=60, prepare=prepare))
    assert [item.video is None for item in sorted(items, key=lambda item: item.position)] == [False, True, False]
    assert seen == ["decode-dispatcher" if workers else "MainThread"] * 2


def test_an_error_of_the_upload_reaches_the_reader() -> None:
    def prepare(video: VideoFrames) -> VideoFrames:
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        list(decode_all(made_up, [(0, "v0")], workers=1, timeout_s=60, prepare=prepare))


@pytest.mark.gpu
def test_on_a_gpu_rows_are_equal_bit_for_bit(tmp_path: Path) -> None:
    model = tiny_model().cuda()
    uploaded = uploader_for(model, RunnerSettings())(made_up("v0"))
    assert isinstance(uploaded, UploadedFrames)
    np.testing.assert_array_equal(frames_on(uploaded, uploaded.pixels.device).cpu().numpy(), made_up("v0").frames)
    tables = [
        evaluate(tmp_path / str(prefetch), NAMES, model=model, workers=1, prefetch=prefetch).table()
        for prefetch in (True, False)
    ]
    left_out = ["decode_s", "model_s"]
    assert tables[0].drop_columns(left_out).equals(tables[1].drop_columns(left_out))
