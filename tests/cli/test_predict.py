"""`vidprune predict` as users run it: results, files that fail, and arguments that are wrong."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Finished

Run = Callable[..., Finished]
TINY = ("--model", "videomae_tiny", "--num-segments", 2, "--num-crops", 1)


def test_table_names_the_file_its_classes_and_that_weights_are_random(vidprune: Run, clip: Path) -> None:
    done = vidprune("predict", clip, *TINY, "--method", "random", "--keep-ratio", 0.5)
    assert done.code == 0
    lines = done.out.splitlines()
    assert lines[0] == "videomae_tiny (random weights) · random · 98 of 196 tokens · 2x1 views, protocol videomae"
    assert lines[1].startswith(str(clip))
    assert [line.split()[0] for line in lines[2:]] == ["1", "2", "3", "4", "5"]
    assert all("%" in line for line in lines[2:])


def test_json_rows_equal_the_api(vidprune: Run, clip: Path, tmp_path: Path) -> None:
    import torch

    import vidprune as vp

    out = tmp_path / "rows.jsonl"
    method = ("--method", "random", "--keep-ratio", 0.3)
    done = vidprune("predict", clip, *TINY, *method, "--json", "--out", out, "--top", 3)
    assert done.code == 0
    assert [json.loads(line) for line in out.read_text().splitlines()] == done.rows
    (row,) = done.rows
    torch.manual_seed(0)
    model = vp.prune(vp.create_model("videomae_tiny", num_classes=400), vp.Random(0.3))
    plan = vp.ViewPlan(num_frames=8, num_segments=2, num_crops=1, short_side=112, crop_size=112)
    expected = vp.predict_video(clip, model, plan).top(3)
    assert [(s["index"], s["name"]) for s in row["top"]] == [(s.index, s.name) for s in expected]
    assert [s["prob"] for s in row["top"]] == pytest.approx([s.prob for s in expected], abs=1e-6)
    assert row["model_weights"] == "random weights"
    assert (row["num_kept"], row["num_tokens"]) == (58, 196)


def test_bad_files_are_named_in_one_line_each_and_the_others_come_out(
    vidprune: Run, clip: Path, bad_files: dict[str, Path]
) -> None:
    named = [path for name, path in bad_files.items() if name != "folder"]
    done = vidprune("predict", *named[:3], clip, *named[3:], *TINY, "--method", "dense", "--json")
    assert done.code == 2
    assert [row["path"] for row in done.rows] == [str(p) for p in (*named[:3], clip, *named[3:])]
    assert [("top" in row) for row in done.rows] == [False, False, False, True, False, False, False]
    errors = [line for line in done.err.splitlines() if line.startswith("vidprune: error:")]
    assert len(errors) == len(named)
    assert all(path.name in line for path, line in zip(named, errors, strict=True))
    assert "Traceback" not in done.err
    assert f"{len(named)} of {len(named) + 1} files failed" in done.err


def test_folders_patterns_and_lists_are_expanded(
    vidprune: Run, clip: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("b.mp4", "a.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
    (tmp_path / "notes.txt").write_text("not a video")
    expected = [str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4")]
    run = (*TINY, "--method", "dense", "--json")
    assert [row["path"] for row in vidprune("predict", tmp_path, *run).rows] == expected
    assert [row["path"] for row in vidprune("predict", f"{tmp_path}/*.mp4", *run).rows] == expected
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*expected, "", expected[0]])))
    assert [row["path"] for row in vidprune("predict", "-", *run).rows] == expected, "blank lines and repeats dropped"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--keep-ratio", "nan"), "keep_ratio must be a number in (0, 1], got nan"),
        (("--keep-ratio", "1.5"), "keep_ratio must be a number in (0, 1], got 1.5"),
        (("--keep-ratio", "0"), "keep_ratio must be a number in (0, 1], got 0.0"),
        (("--model", "videomae_bse"), "did you mean 'videomae_base'"),
        (("--method", "papper"), "did you mean 'papr'"),
        (("--method", "papr", "--proposal", "x3d"), "did you mean 'x3d_"),
        (("--method", "papr", "--input-treatment", "realese"), "release"),
        (("--protocol", "videomea"), "protocol must be one of videomae, mmaction"),
        (("--backend", "pyv"), "did you mean 'pyav'"),
        (("--device", "cuda:77"), "device 'cuda:77' is not usable here"),
        (("--dtype", "int8"), "dtype must be one of float32, float16, bfloat16"),
        (("--class-names", "nowhere.txt"), "no such list or file"),
        (("--checkpoint", "nowhere.pth"), "nowhere.pth"),
        (("--config", "nowhere.yaml"), "cannot read config nowhere.yaml"),
        (("--num-segments", "0"), "num_segments"),
        (("--out", "/dev/null/rows.jsonl"), "cannot write /dev/null/rows.jsonl"),
        (("--method", "dense", "--keep-ratio", "0.5"), "dense takes no options"),
    ],
)
def test_wrong_arguments_give_one_clear_line(
    vidprune: Run, clip: Path, arguments: tuple[str, ...], message: str
) -> None:
    done = vidprune("predict", clip, *TINY, "--method", "random", *arguments)
    assert done.code == 2, done.err
    assert message in done.err
    assert "Traceback" not in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert done.err.startswith("vidprune: error: ")


def test_no_traceback_without_debug_and_one_with_it(clip: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-m", "vidprune", "predict", str(clip), "--model", "videomae_bse"]
    quiet = subprocess.run(command, capture_output=True, text=True, check=False)
    loud = subprocess.run([*command, "--debug"], capture_output=True, text=True, check=False)
    assert quiet.returncode == 2
    assert "Traceback" not in quiet.stderr
    assert loud.returncode != 0
    assert "Traceback" in loud.stderr
    assert "UnknownNameError" in loud.stderr


@pytest.mark.parametrize("name", ["garbage", "html", "empty", "missing"])
def test_a_checkpoint_that_is_none_is_refused_in_one_line(
    vidprune: Run, clip: Path, bad_files: dict[str, Path], name: str
) -> None:
    done = vidprune("predict", clip, *TINY, "--checkpoint", bad_files[name])
    assert done.code == 2
    assert len(done.err.strip().splitlines()) == 1
    assert bad_files[name].name in done.err


def test_flags_override_the_config(vidprune: Run, clip: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(
        "model: {name: videomae_tiny}\n"
        "method: {name: random, keep_ratio: 0.5, seed: 3}\n"
        "views: {num_segments: 1, num_crops: 2, protocol: mmaction}\n"
    )
    (row,) = vidprune("predict", clip, "--config", config, "--json").rows
    assert (row["num_kept"], row["views"], row["protocol"]) == (98, "1x2", "mmaction")
    (row,) = vidprune("predict", clip, "--config", config, "--keep-ratio", 0.3, "--num-crops", 1, "--json").rows
    assert (row["num_kept"], row["views"], row["protocol"]) == (58, "1x1", "mmaction")
    (row,) = vidprune("predict", clip, "--config", config, "--method", "uniform", "--json").rows
    assert (row["method"], row["keep_ratio"]) == ("uniform", 0.45), "another method does not inherit options"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modle: {name: videomae_tiny}", "unknown key 'modle': did you mean 'model'?"),
        ("model: {nam: videomae_tiny}", "unknown key 'nam': did you mean 'name'?"),
        ("method: {name: random, keep_ration: 0.5}", "unknown key 'keep_ration': did you mean 'keep_ratio'?"),
        ("views: {num_segment: 5}", "unknown key 'num_segment': did you mean 'num_segments'?"),
        ("method: random", "must be a mapping"),
        ("- a\n- b", "must be a mapping"),
        ("model: {name: [", "is not valid YAML"),
    ],
)
def test_wrong_configs_give_one_clear_line(vidprune: Run, clip: Path, tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(text)
    done = vidprune("predict", clip, "--model", "videomae_tiny", "--config", config)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
