"""What a picture shows: one view's pixels, which tubelets were kept, the proposal map, and the words above them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vidprune.errors import ConfigError
from vidprune.types import TokenGrid


@dataclass(frozen=True)
class ViewPicture:
    """One view (or one image, T = 1) with what the pruner made of it.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB, as the model sees them: after resize and crop, before normalisation.
        kept: bool [t, h, w] on the token grid, True = kept. T, H and W are multiples of t, h and w.
        proposal_map: float [t', h', w'] on the proposal's own grid, or None for methods without one.
        frame_numbers: source frame number of each of the T frames, or () where unknown.
    """

    frames: np.ndarray
    kept: np.ndarray
    proposal_map: np.ndarray | None = None
    frame_numbers: Sequence[int] = ()

    def __post_init__(self) -> None:
        frames, kept, proposal_map = self.frames, self.kept, self.proposal_map
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
            raise ConfigError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
        if kept.ndim != 3 or kept.dtype != bool or kept.size == 0:
            raise ConfigError(f"kept must be bool [t, h, w], got {kept.dtype} {list(kept.shape)}")
        if any(size == 0 or size % cells for size, cells in zip(frames.shape[:3], kept.shape, strict=True)):
            raise ConfigError(
                f"frames [T, H, W] = {list(frames.shape[:3])} must be multiples of the token grid {list(kept.shape)}"
            )
        if proposal_map is not None and (proposal_map.ndim != 3 or proposal_map.size == 0):
            raise ConfigError(f"the proposal map must be [t', h', w'], got {list(proposal_map.shape)}")
        if proposal_map is not None and not np.isfinite(proposal_map).all():
            raise ConfigError("the proposal map holds NaN or infinity, so it cannot be drawn")
        if len(self.frame_numbers) not in (0, len(frames)):
            raise ConfigError(f"{len(frames)} frames with {len(self.frame_numbers)} frame numbers")

    @property
    def grid(self) -> TokenGrid:
        return TokenGrid(*self.kept.shape)

    @property
    def num_kept(self) -> int:
        return int(self.kept.sum())

    @property
    def frames_per_tubelet(self) -> int:
        return len(self.frames) // self.grid.t


@dataclass(frozen=True)
class Caption:
    """The words of the header; an empty field is left out.

    Attributes:
        file: the file's name.
        model, method, view: names to show, e.g. "videomae_base", "papr, x3d_s", "segment 3 of 5, centre crop".
        keep_ratio: as asked for; None for a dense model.
        prediction: name of the most probable class.
        prob: its probability, 0 to 1.
        random_weights: say in the picture that the weights are random, so that nobody takes the prediction at its word.
    """

    file: str = ""
    model: str = ""
    method: str = ""
    view: str = ""
    keep_ratio: float | None = None
    prediction: str = ""
    prob: float | None = None
    random_weights: bool = False


def keep_mask(kept_index: np.ndarray, grid: TokenGrid) -> np.ndarray:
    """Bool [t, h, w], True = kept, from the kept tokens' flat numbers [K] in (t, h, w) order; -1 pads."""
    kept_index = np.asarray(kept_index)
    if kept_index.ndim != 1 or not np.issubdtype(kept_index.dtype, np.integer):
        raise ConfigError(f"kept_index must be whole numbers [K], got {kept_index.dtype} {list(kept_index.shape)}")
    kept_index = kept_index[kept_index != -1]
    if kept_index.size and not 0 <= kept_index.min() <= kept_index.max() < grid.num_tokens:
        raise ConfigError(
            f"kept_index runs from {kept_index.min()} to {kept_index.max()}, outside 0 to {grid.num_tokens - 1}"
        )
    mask = np.zeros(grid.num_tokens, dtype=bool)
    mask[kept_index] = True
    return mask.reshape(grid.shape)
