"""What a run, an evaluation and a sweep are told: one frozen dataclass each, checked when it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vidprune.errors import ConfigError

DTYPES = ("float32", "float16", "bfloat16")
DEMO = "demo"  # the model trained by us and shipped inside the package; as a manifest, the shipped clips

MethodConfig = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""{"name": "papr", "keep_ratio": 0.45}, or a list of them: a chain, one before the blocks, then one inside them."""


@dataclass(frozen=True)
class ModelConfig:
    """Which host: a registered name, or "demo" for the shipped one; without a checkpoint its weights are random."""

    name: str = "videomae_base"
    checkpoint: str | None = None
    num_classes: int | None = None

    def __post_init__(self) -> None:
        if self.name == DEMO and (self.checkpoint is not None or self.num_classes is not None):
            raise ConfigError(
                "model demo comes with weights and classes of its own; for yours name the architecture: videomae_tiny"
            )


@dataclass(frozen=True)
class ProposalConfig:
    """Which proposal a sweep tries: the fields that a method such as papr calls proposal, proposal_checkpoint, ..."""

    name: str
    checkpoint: str | None = None
    input_treatment: str | None = None

    def fields_of_method(self) -> dict[str, str]:
        """What this sets of a method."""
        fields = {
            "proposal": self.name,
            "proposal_checkpoint": self.checkpoint,
            "input_treatment": self.input_treatment,
        }
        return {key: value for key, value in fields.items() if value is not None}


@dataclass(frozen=True)
class RunConfig:
    """Everything one run needs.

    Attributes:
        model: the host.
        method: "name" and the fields of that method's config, e.g. {"name": "papr", "keep_ratio": 0.45}; "dense" prunes
            nothing. A list of them is a chain: one before the blocks, then one inside them.
        views: fields of `ViewPlan`; sizes and frames default to what the model takes.
        class_names: a known list ("kinetics400", "imagenet1k", "demo") or a file; None follows the number of classes.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        dtype: "float32", "float16" or "bfloat16".
        backend: the decoder.
        colour: "rgb", or "yuv" to keep each file's own planes while decoding and make RGB on the device.
        compile: run the model through torch.compile; methods whose counts depend on the input stay as they are.
        views_per_batch: views that share a forward pass; None is all of a video.
        seed: of random weights.
    """

    model: ModelConfig = field(default_factory=ModelConfig)
    method: MethodConfig = field(default_factory=lambda: {"name": "dense"})
    views: Mapping[str, Any] = field(default_factory=dict)
    class_names: str | None = None
    device: str = "auto"
    dtype: str = "float32"
    backend: str = "pyav"
    colour: str = "rgb"
    compile: bool = False
    views_per_batch: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        from vidprune.video.colour import check_colour

        if self.dtype not in DTYPES:
            raise ConfigError(f"dtype must be one of {', '.join(DTYPES)}, got {self.dtype!r}")
        check_colour(self.colour, self.backend)
        if self.views_per_batch is not None and self.views_per_batch < 1:
            raise ConfigError(f"views_per_batch must be at least 1, got {self.views_per_batch}")


@dataclass(frozen=True)
class EvaluateConfig:
    """A run over the videos of a manifest, kept in a folder that the same config goes on with.

    In YAML the keys of the run stand beside these, not under `run`.

    Attributes:
        manifest: a list of videos, or a folder of class folders, see `vidprune.evaluation.manifests.read_manifest`;
            "demo" for the shipped clips.
        out: the folder of the run: predictions, report.
        run: the model, the method, the views.
        root: folder that relative paths of the manifest start from.
        manifest_format: "auto", or the manifest's format by name.
        workers: decode processes, 0 for none; None is one per CPU core this process may use, at most 16. The
            processes of a `torchrun` on one machine share its cores.
        timeout_s: seconds after which decoding a file is given up.
        max_failed: failures up to which the command line calls the run a success.
        store: "logits" keeps every view's, "probs" only the average (a fifteenth of the space at 15 views).
        retry_failed: decode the videos again whose rows are failures.
        flush_rows, flush_s: how many rows, or seconds of work, a killed run may lose.
        prefetch: on a GPU, upload each video's frames while the model runs on the one before, and take its results
            when it has the next video to work on.
        limit: take only so many videos, the first of the manifest.
    """

    manifest: str
    out: str
    run: RunConfig = field(default_factory=RunConfig)
    root: str | None = None
    manifest_format: str = "auto"
    workers: int | None = None
    timeout_s: float = 120.0
    max_failed: int = 0
    store: str = "logits"
    retry_failed: bool = False
    flush_rows: int = 64
    flush_s: float = 30.0
    prefetch: bool = True
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.max_failed < 0:
            raise ConfigError(f"max_failed must be at least 0, got {self.max_failed}")
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"limit must be at least 1, got {self.limit}")


@dataclass(frozen=True)
class SweepGrid:
    """Every model with every method, the method with every proposal and keep ratio that it leaves open.

    Attributes:
        models: the hosts; each is evaluated dense as well.
        methods: as in `RunConfig`. A method, or a step of a chain, may hold `each: {r: [20, 40]}`: one point for each
            value, and for each combination where several fields vary.
        proposals: for the steps that ask one and do not name it.
        keep_ratios: for the steps that have a keep_ratio and give neither it nor a mass.
    """

    models: Sequence[ModelConfig]
    methods: Sequence[MethodConfig]
    proposals: Sequence[ProposalConfig] = ()
    keep_ratios: Sequence[float] = ()


@dataclass(frozen=True)
class SweepConfig:
    """Many runs over the videos of one manifest, each video decoded once for all of them.

    In YAML the keys of the evaluation and of the run stand beside `grids`; a single grid's keys may stand there too.

    Attributes:
        evaluation: what all points share: videos, folder, views, device, precision. Its model and method are not used.
        grids: the points; those that are named twice are evaluated once.
    """

    evaluation: EvaluateConfig
    grids: Sequence[SweepGrid]

    def __post_init__(self) -> None:
        if not self.grids:
            raise ConfigError("a sweep needs models and methods, or grids of them")
