"""Flags that several verbs share: each one's kind, its words in the help, and what holds where it is not given."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vidprune.config import DTYPES

_MODEL = "Model"
_PRUNING = "Pruning"
_VIEWS = "Views"
_RUNNING = "Device and decoding"
_CONFIG = "Config file"
"""Headings of the help, in this order, below what is a verb's own."""


def _option(help: str, *names: str, default: str | None = None, panel: str, min: int | None = None) -> Any:
    """An option that is None where it was not given; `default` is what its help says of that."""
    return typer.Option(*names, help=help, show_default=default or False, rich_help_panel=panel, min=min)


Model = Annotated[
    str | None,
    _option(
        "Model name (see `vidprune list models`), or demo for the shipped one.", default="videomae_base", panel=_MODEL
    ),
]
Checkpoint = Annotated[
    str | None,
    _option("Its weights: .pth, .safetensors or a Hugging Face folder.", default="random weights", panel=_MODEL),
]
ClassNames = Annotated[
    str | None,
    _option(
        "kinetics400, imagenet1k, demo, or a text file with one name per line.", default="by their number", panel=_MODEL
    ),
]
Method = Annotated[
    str | None,
    _option(
        "papr, tome, evit, random, dense (no pruning), ... (see `vidprune list methods`).",
        default="papr",
        panel=_PRUNING,
    ),
]
KeepRatio = Annotated[
    float | None, _option("Share of the tokens that stay, above 0 and up to 1.", default="0.45", panel=_PRUNING)
]
Proposal = Annotated[
    str | None,
    _option(
        "What marks the tubelets, for papr (see `vidprune list proposals`).",
        default="x3d_s, with demo x3d_tiny",
        panel=_PRUNING,
    ),
]
ProposalCheckpoint = Annotated[
    str | None, _option("The proposal's weights; demo's are shipped.", default="random weights", panel=_PRUNING)
]
InputTreatment = Annotated[
    str | None,
    _option(
        "How the proposal sees the clip: release (resampled to its own size), native (as the ViT sees it) or own_norm "
        "(native, in the proposal's own mean and std).",
        default="release",
        panel=_PRUNING,
    ),
]
MethodOptions = Annotated[
    list[str] | None,
    _option(
        "Another field of the method, such as r=65 of tome; repeatable. `vidprune list METHOD` names them.",
        "--method-option",
        panel=_PRUNING,
    ),
]
Protocol = Annotated[
    str | None, _option("Which frames and crops are views: videomae or mmaction.", default="videomae", panel=_VIEWS)
]
Segments = Annotated[int | None, _option("Temporal segments per video.", "--num-segments", default="5", panel=_VIEWS)]
Crops = Annotated[int | None, _option("Spatial crops per segment.", "--num-crops", default="3", panel=_VIEWS)]
Device = Annotated[
    str | None, _option("auto (a GPU where there is one), cpu, cuda or cuda:N.", default="auto", panel=_RUNNING)
]
Dtype = Annotated[
    str | None, _option(f"Of weights and activations: {', '.join(DTYPES)}.", default="float32", panel=_RUNNING)
]
Backend = Annotated[str | None, _option("Decoder: pyav, decord or torchcodec.", default="pyav", panel=_RUNNING)]
Colour = Annotated[
    str | None,
    _option("rgb, or yuv to make RGB on the device, which is faster (pyav only).", default="rgb", panel=_RUNNING),
]
Compile = Annotated[bool | None, _option("Run the model through torch.compile.", "--compile", panel=_RUNNING)]
ViewsPerBatch = Annotated[
    int | None, _option("Views per forward pass; fewer need less memory.", default="one video's", panel=_RUNNING, min=1)
]
Config = Annotated[str | None, _option("YAML file with any of these; flags override it.", panel=_CONFIG)]
Settings = Annotated[
    list[str] | None,
    _option(
        "Set any key of the config, such as method.keep_ratio=0.3; repeatable, wins over all.",
        "--set",
        panel=_CONFIG,
    ),
]
Out = Annotated[str | None, typer.Option(help="Folder of the results; the same command goes on where it stopped.")]
Root = Annotated[str | None, typer.Option(help="Folder that the manifest's relative paths start from.")]
ManifestFormat = Annotated[
    str | None,
    typer.Option("--format", show_default="auto", help="auto, videomae, mmaction, paths, csv, kinetics or folder."),
]
Workers = Annotated[
    int | None, typer.Option(min=0, show_default="one per core", help="Decode processes; 0 decodes in this one.")
]
TimeoutS = Annotated[
    float | None, typer.Option(show_default="120", help="Give up decoding a file after so many seconds.")
]
MaxFailed = Annotated[
    int | None, typer.Option(min=0, show_default="0", help="Videos that may fail; more make the exit code 2.")
]
Store = Annotated[
    str | None,
    typer.Option(show_default="logits", help="logits of every view, or probs: their mean alone, which is smaller."),
]
RetryFailed = Annotated[bool | None, typer.Option("--retry-failed", help="Try failed videos again.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Take only the first so many videos.")]
Json = Annotated[
    bool, typer.Option("--json", help="Print JSON, an object per line where there are several, not tables.")
]
