"""The decoders behind `read_frames`. Each is one function, see `vidprune.video.request.Backend`."""

from __future__ import annotations

from vidprune.registry import Registry

VIDEO_BACKENDS = Registry("video backend", "vidprune.video_backends")
VIDEO_BACKENDS.register(
    "pyav", "vidprune.video.backends.pyav:read", "default: frame-exact, decodes only what is needed, survives damage"
)
VIDEO_BACKENDS.register(
    "decord",
    "vidprune.video.backends.decord:read",
    "as VideoMAE's own code; silently wrong on open GOP, edit lists, AVI, TS",
)
VIDEO_BACKENDS.register(
    "torchcodec",
    "vidprune.video.backends.torchcodec:read",
    "frame-exact in MP4, MKV, WebM; optional, needs FFmpeg's shared libraries",
)
