"""Video: files to frames (`read_frames`, `read_video`), frames to views (`ViewPlan`, `cut_views`)."""

from vidprune.video.backends import VIDEO_BACKENDS
from vidprune.video.reader import check_motion_backend, read_frames, read_video
from vidprune.video.request import DecodeStats
from vidprune.video.views import ViewPlan, cut_views

__all__ = [
    "VIDEO_BACKENDS",
    "DecodeStats",
    "ViewPlan",
    "check_motion_backend",
    "cut_views",
    "read_frames",
    "read_video",
]
