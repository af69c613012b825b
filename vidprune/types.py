"""Small frozen dataclasses that travel between the modules, each checking its own shape. No logic beyond that."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from vidprune.errors import ConfigError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""How every clip is normalised, ((x / 255) - mean) / std, because the ViTs were trained so."""


@dataclass(frozen=True)
class TokenGrid:
    """Token grid of one view: t tubelets in time, h x w in space, flattened in (t, h, w) order. Images have t = 1."""

    t: int
    h: int
    w: int

    def __post_init__(self) -> None:
        if min(self.t, self.h, self.w) < 1:
            raise ConfigError(f"token grid must be at least 1 along every axis, got {self.shape}")

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.t, self.h, self.w)

    @property
    def num_tokens(self) -> int:
        return self.t * self.h * self.w


@dataclass(frozen=True)
class VideoFrames:
    """Frames read from one file.

    Attributes:
        frames: uint8 [F, H, W, 3] in RGB, or [F, N] by planes, see `colour`; one row per distinct requested frame, in
            ascending frame number.
        frame_numbers: int64 [F], the source frame number of each row (presentation order, 0-based).
        num_frames_total: how many frames the file presents, edit lists applied.
        num_errors: packets that failed to decode, and frames whose damaged parts the decoder patched up.
        num_filled: requested frames that could not be decoded and repeat the nearest decoded frame.
        filled: bool [F], which rows those are.
        fps: average frame rate, 0.0 when the file does not say.
        source_size: (height, width) as displayed, before the resize.
        backend: the decoder that produced the frames.
        motion: float32 [F, h16, w16, 2], the codec's motion at each frame, (right, down) in pixels of the source per
            source frame, one cell for 16 x 16 pixels of the source from the top left, the last ones cut; NaN where the
            codec gave none (key frames, intra blocks). None unless it was asked for.
        colour: "rgb", or the matrix by which the planes Y, Cb and Cr become RGB, such as "bt601" (limited range) or
            "bt709-full"; see `vidprune.video.colour`. Such frames are Y [H, W], then Cb and Cr at half the size,
            rounded up, one after another in a row of N bytes.
        size_of_planes: (H, W) of frames stored by planes; None of RGB frames, whose shape says it.
    """

    frames: np.ndarray
    frame_numbers: np.ndarray
    num_frames_total: int
    num_errors: int
    num_filled: int
    filled: np.ndarray
    fps: float
    source_size: tuple[int, int]
    backend: str
    motion: np.ndarray | None = None
    colour: str = "rgb"
    size_of_planes: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.size_of_planes is None:
            fits, allowed = self.frames.ndim == 4 and self.frames.shape[-1] == 3, "[F, H, W, 3]"
        else:
            height, width = self.size_of_planes
            num_levels = height * width + 2 * ((height + 1) // 2) * ((width + 1) // 2)
            fits, allowed = self.frames.shape[1:] == (num_levels,), f"[F, {num_levels}]"
        if not fits or self.frames.dtype != np.uint8:
            raise ConfigError(f"frames must be uint8 {allowed}, got {self.frames.dtype} {self.frames.shape}")
        if (self.colour == "rgb") != (self.size_of_planes is None):
            raise ConfigError(f"size_of_planes goes with planes, got {self.size_of_planes} and colour {self.colour!r}")
        if len(self.frame_numbers) != len(self.frames) or len(self.filled) != len(self.frames):
            raise ConfigError(
                f"{len(self.frames)} frames with {len(self.frame_numbers)} numbers and {len(self.filled)} fill flags"
            )
        motion = self.motion
        if motion is not None and (motion.ndim != 4 or motion.shape[::3] != (len(self.frames), 2)):
            raise ConfigError(f"motion must be [{len(self.frames)}, h16, w16, 2], got {list(motion.shape)}")

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the frames, after the resize."""
        return self.size_of_planes or (self.frames.shape[1], self.frames.shape[2])


@dataclass(frozen=True)
class ClassScore:
    """One class of a prediction: its index, name and probability."""

    index: int
    name: str
    prob: float


@dataclass(frozen=True)
class VideoPrediction:
    """The prediction for one video, the mean over its views.

    Attributes:
        path: the file.
        probs: float32 [classes], softmax per view, then the mean over views.
        view_logits: float32 [V, classes], one row per view (segment-major, then crop).
        kept_index: int64 [V, K] kept tokens per view in ascending order, or None for a dense model. Where a method's
            count depends on the input, rows are padded with -1 at the end.
        num_tokens: tokens per view before pruning.
        num_errors: packets of the file that failed to decode, and frames that the decoder patched up.
        num_filled: frames filled in from their nearest neighbour.
    """

    path: str
    probs: np.ndarray
    view_logits: np.ndarray
    kept_index: np.ndarray | None
    num_tokens: int
    num_errors: int = 0
    num_filled: int = 0
    class_names: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.probs.ndim != 1 or self.view_logits.ndim != 2 or self.view_logits.shape[1] != len(self.probs):
            raise ConfigError(f"probs {self.probs.shape} and view logits {self.view_logits.shape} do not agree")
        if isinstance(self.class_names, str) or len(self.class_names) not in (0, len(self.probs)):
            got = repr(self.class_names) if isinstance(self.class_names, str) else f"{len(self.class_names)} names"
            raise ConfigError(f"class_names must be {len(self.probs)} names, one per class, got {got}")

    @property
    def num_views(self) -> int:
        return len(self.view_logits)

    @property
    def view_num_kept(self) -> np.ndarray:
        """int64 [V], the tokens that each view kept."""
        if self.kept_index is None:
            return np.full(self.num_views, self.num_tokens)
        return (self.kept_index >= 0).sum(axis=1)

    @property
    def num_kept(self) -> int:
        """Tokens kept per view; the mean over the views, rounded, where they differ."""
        return round(float(self.view_num_kept.mean()))

    def top(self, k: int = 5) -> list[ClassScore]:
        """The `k` most probable classes, best first; ties go to the lower index."""
        order = np.argsort(-self.probs, kind="stable")[:k]
        names = self.class_names or tuple(f"class {i}" for i in range(len(self.probs)))
        return [ClassScore(int(i), names[i], float(self.probs[i])) for i in order]
