"""`flops`, `list`, `visualize` and the root command."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Finished

Run = Callable[..., Finished]


@pytest.mark.parametrize(
    ("model", "treatment", "keep_ratio", "vit", "proposal"),
    [
        ("videomae_base", "native", 0.45, 70.9, 4.73),
        ("videomae_base", "release", 0.45, 70.9, 1.21),
        ("videomae_base", "native", 0.35, 53.9, 4.73),
        ("videomae_large", "native", 0.5, 269.4, 4.73),
        ("videomae_large", "release", 0.3, 155.3, 1.21),
    ],
)
def test_flops_gives_papr_table_8(
    vidprune: Run, model: str, treatment: str, keep_ratio: float, vit: float, proposal: float
) -> None:
    arguments = ("--model", model, "--input-treatment", treatment, "--keep-ratio", keep_ratio)
    (row,) = vidprune("flops", *arguments, "--json").rows
    assert row["vit_gmacs"] == pytest.approx(vit, rel=0.01)
    assert row["proposal_gmacs"] == pytest.approx(proposal, rel=0.01)
    assert row["dense_gmacs"] == pytest.approx({"videomae_base": 180.3, "videomae_large": 596.8}[model], rel=0.01)


def test_flops_table_has_a_row_per_keep_ratio(vidprune: Run) -> None:
    done = vidprune("flops", "--keep-ratio", 0.5, "--keep-ratio", 0.3)
    assert done.code == 0
    assert "79.7" in done.out
    assert "45.8" in done.out
    assert "180.3" in done.out


def test_flops_of_a_method_inside_the_blocks_by_its_own_options(vidprune: Run) -> None:
    done = vidprune("flops", "--model", "videomae_large", "--method", "tome", "--method-option", "r=65", "--json")
    (row,) = done.rows
    assert row["vit_gmacs"] == pytest.approx(280.4, rel=0.01), "PaPr, table 8"
    assert (row["num_kept"], row["r"]) == (1568, 65)
    assert row["num_final"] == 37, "the last block is left with 73 and may merge at most half of them"
    done = vidprune("flops", "--method", "tome", "--method-option", "r65")
    assert done.code == 2
    assert "field=value" in done.err
    done = vidprune("flops", "--method", "tome", "--method-option", "rr=65")
    assert done.code == 2
    assert "unknown key 'rr': did you mean 'r'?" in done.err


def test_every_method_file_is_registered(vidprune: Run) -> None:
    """A method that no name leads to would be left out of every table."""
    import vidprune.pruners.base as base
    from vidprune.pruners import METHODS

    for name in METHODS.names():
        METHODS.get(name)
    found: set[str] = set()
    classes = list(base.Pruner.__subclasses__())
    while classes:
        cls = classes.pop()
        classes += cls.__subclasses__()
        if cls.__module__.startswith("vidprune.pruners.") and hasattr(cls, "name"):
            found.add(cls.name)
    assert found == set(METHODS.names())


def test_list_names_everything_that_a_flag_accepts(vidprune: Run) -> None:
    from vidprune.proposals import PROPOSALS
    from vidprune.pruners import METHODS

    done = vidprune("list", "--json")
    listing = json.loads(done.out)
    assert {"videomae_base", "videomae_tiny"} <= set(listing["models"])
    assert set(METHODS.names()) <= set(listing["methods"])
    assert set(listing["proposals"]) == set(PROPOSALS.names())
    assert {"pyav", "decord", "torchcodec"} <= set(listing["backends"])
    assert all(description for names in listing.values() for description in names.values())
    assert list(json.loads(vidprune("list", "proposals", "--json").out)) == ["proposals"]
    done = vidprune("list", "model")
    assert done.code == 2
    assert "did you mean 'models'" in done.err


def test_visualize_writes_both_pictures_per_video_and_reports_bad_files(
    vidprune: Run, clip: Path, bad_files: dict[str, Path], tmp_path: Path
) -> None:
    import av
    from PIL import Image

    arguments = ("--model", "videomae_tiny", "--method", "random", "--keep-ratio", 0.3, "--num-segments", 2)
    done = vidprune("visualize", clip, bad_files["garbage"], "--out", tmp_path, *arguments, "--json")
    assert done.code == 2
    drawn, failed = done.rows
    assert "error" in failed
    with Image.open(drawn["sheet"]) as sheet:
        assert sheet.width > 400
    with av.open(drawn["overlay"]) as overlay:
        assert sum(1 for _ in overlay.decode(video=0)) == 16, "two segments of eight frames"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["good.mp4", "good.png"], "no temporary file stays"


def test_two_videos_of_one_name_do_not_overwrite_each_other(vidprune: Run, clip: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "good.mp4"
    other.parent.mkdir()
    other.write_bytes(clip.read_bytes())
    arguments = ("--model", "videomae_tiny", "--method", "dense", "--num-segments", 1)
    done = vidprune("visualize", clip, other, "--out", tmp_path / "out", *arguments, "--json")
    assert len({row["sheet"] for row in done.rows}) == 2
    assert all(Path(row["sheet"]).is_file() for row in done.rows)


def test_root_command(vidprune: Run) -> None:
    from vidprune import __version__

    assert vidprune("--version").out.strip() == f"vidprune {__version__}"
    done = vidprune("--help")
    assert done.code == 0
    assert all(verb in done.out for verb in ("predict", "visualize", "flops", "list", "demo"))
    done = vidprune("predicct")
    assert done.code == 2
    assert "predict" in done.err


def test_demo_prints_one_whole_table_and_draws(vidprune: Run, tmp_path: Path) -> None:
    done = vidprune("demo", "--num-clips", 3, "--num-pictures", 1, "--out", tmp_path)
    assert done.code == 0
    assert "\u2026" not in done.out, "a cell is cut off"
    assert [line.split()[0] for line in done.out.splitlines() if "x  " in line][:2] == ["dense", "papr"]
    assert {path.suffix for path in tmp_path.iterdir()} == {".png", ".mp4"}
    document = json.loads(vidprune("demo", "--num-clips", 2, "--num-pictures", 0, "--json").out)
    assert [row["method"] for row in document["rows"]].count("papr") == 3
    assert document["rows"][0]["speed_up"] == 1.0
