"""`vidprune sweep`, configs of evaluations, `--set` and `validate` of all kinds of configs, as users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Finished
from tests.media import write_video
from vidprune.evaluation.store import PredictionStore

Run = Callable[..., Finished]
CHECKOUT = Path(__file__).resolve().parents[2]
RUN = "device: cpu\nworkers: 0\nviews: {num_segments: 1, num_crops: 1}\n"
SWEEP = RUN + (
    "models: [{name: demo}]\nmethods: [{name: papr}, [{name: papr}, {name: tome, r: 8}]]\n"
    "proposals: [{name: x3d_tiny}, {name: centre}]\nkeep_ratios: [0.5]\n"
)
NAMES = ["demo-dense", *(f"demo-papr-{p}-z0.5{c}" for c in ("", "+tome-r8") for p in ("x3d_tiny", "centre"))]


def write(folder: Path, text: str) -> Path:
    path = folder / "config.yaml"
    path.write_text(text)
    return path


def test_a_sweep_over_the_shipped_clips(vidprune: Run, tmp_path: Path) -> None:
    config, out = write(tmp_path, SWEEP + "manifest: demo\nlimit: 3\n"), tmp_path / "out"
    done = vidprune("sweep", config, "--out", out, "--limit", 2)
    assert done.code == 0, done.err
    assert "2 videos listed, 2 decoded, 0 failed" in done.out
    assert sorted(path.name for path in (out / "points").iterdir()) == sorted(NAMES)
    assert {path.name for path in out.iterdir()} == {"points", "table.md", "table.csv", "report.html"}
    (report,) = vidprune("sweep", config, "--out", out, "--limit", 2, "--json").rows
    assert [Path(point["run"]).name for point in report["points"]] == NAMES
    assert report["points"][0]["num_labelled"] == 2
    chain = next(point for point in report["points"] if point["run"].endswith("centre-z0.5+tome-r8"))
    assert (chain["method"]["name"], chain["compared_with"]) == ("papr+tome", "demo-dense")
    assert vidprune("report", out / "points" / "demo-dense").code == 0, "each point is a run"
    done = vidprune("sweep", config, "--out", out)
    assert done.code == 2
    assert "manifest.num_entries: 2 -> 3" in done.err


def test_failures_of_a_sweep_have_an_exit_code(vidprune: Run, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("absent.mp4 1\n")
    command = ("sweep", write(tmp_path, SWEEP), "--manifest", tmp_path / "list.txt", "--out", tmp_path / "out")
    done = vidprune(*command)
    assert done.code == 2
    assert "1 videos failed, --max-failed allows 0" in done.err
    assert vidprune(*command, "--max-failed", 1).code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "keep_ratio=[0.5]"), "did you mean 'keep_ratios'"),
        (("--set", "models.0.name=videomae_tyni"), "did you mean 'videomae_tiny'"),
        (("--set", "methods.0.name=papper"), "did you mean 'papr'"),
        (("--set", "manifest=null"), "missing manifest"),
        (("--set", "dtype=int8"), "dtype must be one of"),
    ],
)
def test_wrong_sweeps_are_one_line(vidprune: Run, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    done = vidprune("sweep", write(tmp_path, SWEEP + "manifest: demo\n"), "--out", tmp_path / "out", *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_torchrun_shares_a_sweep(tmp_path: Path) -> None:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vidprune"]
    config = write(tmp_path, SWEEP + "manifest: demo\nlimit: 3\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*launch, "sweep", str(config), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for name in NAMES:
        store = PredictionStore.open(tmp_path / "out" / "points" / name)
        assert store.table()["position"].to_pylist() == [0, 1, 2]
        assert len(store.parts()) == 2, "each process wrote its own share"


def test_an_evaluation_from_its_config_with_flags_and_settings_over_it(vidprune: Run, tmp_path: Path) -> None:
    write_video(tmp_path / "a.mp4", range(40), size=(112, 150))
    (tmp_path / "list.txt").write_text("a.mp4 1\n")
    text = (
        RUN
        + f"manifest: {tmp_path}/list.txt\nmodel: {{name: videomae_tiny}}\nmethod: {{name: random, keep_ratio: 0.5}}"
    )
    config = write(tmp_path, text)
    done = vidprune("evaluate", "--config", config)
    assert done.code == 2
    assert "needs a folder for its results (--out FOLDER)" in done.err
    for number, (arguments, num_kept, method) in enumerate(
        [
            ((), 98, "random"),
            (("--keep-ratio", 0.3), 58, "random"),
            (("--keep-ratio", 0.3, "--set", "method.keep_ratio=0.2"), 39, "random"),
            (("--set", "method=[{name: random, keep_ratio: 0.5}, {name: tome, r: 8}]"), 66, "random+tome"),
        ]
    ):
        (report,) = vidprune("evaluate", "--config", config, "--out", tmp_path / str(number), *arguments, "--json").rows
        assert (report["num_kept"], report["method"]["name"], report["num_decoded"]) == (num_kept, method, 1)
    chain = write(tmp_path, text.replace("{name: random, keep_ratio: 0.5}", "[{name: tome, r: 8}]"))
    done = vidprune("evaluate", "--config", chain, "--out", tmp_path / "x", "--keep-ratio", 0.5)
    assert done.code == 2
    assert "--set method.0.keep_ratio=0.5" in done.err
    done = vidprune("predict", tmp_path / "a.mp4", "--config", config)
    assert done.code == 2
    assert "is a config of `vidprune evaluate`" in done.err


def test_settings_reach_predict_visualize_and_flops(vidprune: Run, tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", range(40), size=(112, 150))
    chain = (
        "--set",
        "method=[{name: random, keep_ratio: 0.5}, {name: tome, r: 8}]",
        "--set",
        "model.name=videomae_tiny",
    )
    (row,) = vidprune("predict", video, *chain, "--set", "views={num_segments: 1, num_crops: 2}", "--json").rows
    assert (row["method"], row["num_kept"], row["views"]) == ("random+tome", 66, "1x2")
    (row,) = vidprune("flops", *chain, "--json").rows
    assert (row["name"], row["num_kept"], row["num_final"]) == ("random+tome", 98, 66)
    done = vidprune("visualize", video, *chain, "--set", "views.num_segments=1", "--out", tmp_path, "--json")
    assert done.code == 0, done.err
    assert Path(done.rows[0]["sheet"]).exists()
    done = vidprune("predict", video, *chain, "--set", "views.num_segment=1")
    assert done.code == 2
    assert "did you mean 'num_segments'" in done.err


def test_validate_says_what_is_wrong_with_evaluations_and_sweeps(vidprune: Run, tmp_path: Path) -> None:
    done = vidprune("validate", write(tmp_path, SWEEP + "manifest: demo\nout: runs/x\n"), "--json")
    (report,) = done.rows
    assert (done.code, report["verb"], report["points"], report["problems"]) == (0, "sweep", NAMES, [])
    text = SWEEP.replace("name: demo", "name: videomae_tiny, checkpoint: w.pth").replace("r: 8", "r: 8, start_block: 9")
    config = write(tmp_path, text + "manifest: nowhere.csv\nout: x\nbackend: pyv\n")
    done = vidprune("validate", config, "--json")
    assert done.code == 2
    problems = "\n".join(done.rows[0]["problems"])
    assert len(done.rows[0]["problems"]) == 5
    for part in ("checkpoint w.pth does not exist", "did you mean 'pyav'", "nowhere.csv"):
        assert problems.count(part) == 1, "once, though all points share it"
    assert "videomae_tiny-papr-centre-z0.5+tome-r8-start_block9: " in problems
    screen = vidprune("validate", config)
    assert len(screen.err.strip().splitlines()) == 5 + len(done.rows[0]["warnings"])
    evaluation = write(tmp_path, RUN + "manifest: nowhere.csv\nout: x\nmodel: {name: videomae_tiny}\n")
    done = vidprune("validate", evaluation, "--json", "--set", "method.name=randm")
    assert done.rows[0]["verb"] == "evaluate"
    assert any("did you mean 'random'" in problem for problem in done.rows[0]["problems"])
    assert any("nowhere.csv" in problem for problem in done.rows[0]["problems"])
    assert json.loads(json.dumps(done.rows[0]))["usable"] is False
