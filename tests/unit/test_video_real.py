"""Real clips: the planned frames are those of plain decoding and OpenCV's resize, bit for bit."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from vidprune.errors import VideoDecodeError
from vidprune.video import ViewPlan, read_video

READABLE = {
    "arm_wrestling.mp4": 280,
    "flipping_pancake.mkv": 310,
    "mma_test.avi": 164,
    "mma_test.mp4": 300,
    "rawvideo_part_0.mp4": 32,
    "skeleton.mp4": 72,
    "soccer_juggling.avi": 240,
    "spatiotemporal.mp4": 57,
    "structuralize.mp4": 300,
    "using_segway_a.mp4": 303,
    "using_segway_b.mp4": 327,
    "wave.avi": 74,
}


@pytest.mark.parametrize("name", READABLE)
def test_planned_frames_of_a_real_clip(real_videos: Path, name: str) -> None:
    plan = ViewPlan(protocol="videomae" if len(name) % 2 else "mmaction")
    video = read_video(real_videos / name, plan)
    wanted = set(plan.wanted_frames(READABLE[name]).tolist())
    count, expected = 0, []
    with av.open(str(real_videos / name)) as container:
        for frame in container.decode(video=0):
            if count in wanted:
                image = frame.to_ndarray(format="rgb24")
                height, width = plan.resized_size(*image.shape[:2])
                expected.append(cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR))
            count += 1
    assert video.num_frames_total == count == READABLE[name]
    assert video.frame_numbers.tolist() == sorted(wanted)
    assert (video.num_errors, video.num_filled) == (0, 0)
    np.testing.assert_array_equal(video.frames, np.stack(expected))


def test_the_damaged_clip_is_read_with_its_damage_stated(real_videos: Path) -> None:
    """28 of its 50 frames come before the first damaged packet; decord gives none of them."""
    video = read_video(real_videos / "corrupted.mp4", ViewPlan())
    assert video.num_frames_total == 50
    assert video.num_errors >= 1
    with pytest.raises(VideoDecodeError, match="decord failed"):
        read_video(real_videos / "corrupted.mp4", ViewPlan(), backend="decord")
