"""The names of image models that run on every frame of a clip, importable without torch or timm.

`frames/vit_base_patch16_224` is timm's ViT-B on 8 frames per clip. Settings stand behind colons, in any order: a number
is the frames per clip, "clip" or "frame" the budget, "logits" or "probs" what is averaged, as in
`frames:16:clip/vit_base_patch16_224`. After the slash stands timm's name or one of `MODELS`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vidprune.errors import ConfigError
from vidprune.models.catalog import FRAMES_PREFIX, MODELS, TIMM_PREFIX

if TYPE_CHECKING:
    from torch import nn

    from vidprune.models.frame_batch import FrameBatch

_WORDS = {"clip": "budget", "frame": "budget", "logits": "average", "probs": "average"}


@dataclass(frozen=True)
class FramesName:
    """What a name `frames.../NAME` says: the image model's own name, and the arguments of `FrameBatch`."""

    image_model: str
    settings: dict[str, Any]

    def wrap(self, model: nn.Module) -> FrameBatch:
        """The frame batch over the image model."""
        from vidprune.models.frame_batch import FrameBatch

        return FrameBatch(model, **self.settings).eval()


def parse_frames_name(name: str) -> FramesName | None:
    """The parts of a name `frames.../NAME`; None for any other name. Raises `ConfigError` for an unknown setting."""
    prefix, slash, image_model = name.partition("/")
    word, *given = prefix.split(":")
    if word != FRAMES_PREFIX or not slash:
        return None
    settings: dict[str, Any] = {}
    for value in given:
        key = "frames_per_clip" if value.isdecimal() else _WORDS.get(value)
        if key is None or key in settings:
            fault = "is not known" if key is None else f"sets {key} again"
            raise ConfigError(
                f"model {name!r}: setting {value!r} {fault}; allowed are a number of frames, {', '.join(_WORDS)}, as "
                "in frames:16:clip/vit_base_patch16_224"
            )
        settings[key] = int(value) if value.isdecimal() else value
    known = image_model in MODELS or image_model.startswith(TIMM_PREFIX)
    return FramesName(image_model if known else TIMM_PREFIX + image_model, settings)
