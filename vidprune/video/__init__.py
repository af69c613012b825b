"""Video: files to frames (`read_frames`, `read_video`), frames to views (`ViewPlan`, `cut_views`)."""

from vidprune.video.backends import VIDEO_BACKENDS
from vidprune.video.reader import read_frames, read_video
from vidprune.video.request import DecodeStats
from vidprune.video.views import IMAGENET_MEAN, IMAGENET_STD, ViewPlan, cut_views

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "VIDEO_BACKENDS",
    "DecodeStats",
    "ViewPlan",
    "cut_views",
    "read_frames",
    "read_video",
]
