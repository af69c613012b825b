"""Video: files to frames (`read_frames`, `read_video`), frames to views (`ViewPlan`, `cut_views`)."""

from vidprune.video.backends import VIDEO_BACKENDS
from vidprune.video.reader import read_frames, read_video
from vidprune.video.request import DecodeStats
from vidprune.video.views import ViewPlan, cut_views

__all__ = [
    "VIDEO_BACKENDS",
    "DecodeStats",
    "ViewPlan",
    "cut_views",
    "read_frames",
    "read_video",
]
