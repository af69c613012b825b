"""`vidprune evaluate` and `vidprune report` as users run them: results, going on, failures, several processes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Finished
from tests.media import write_video
from vidprune.evaluation.store import PredictionStore

Run = Callable[..., Finished]
CHECKOUT = Path(__file__).resolve().parents[2]
TINY = ("--model", "videomae_tiny", "--num-segments", 2, "--num-crops", 1, "--method", "random", "--keep-ratio", 0.5)
HERE = ("--workers", 0)  # decode in this process: no start-up, what workers do is tested with the runner
TIMES = ["decode_s", "model_s"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five clips, one file that is none, and lists of them."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(5):
        write_video(folder / f"clip {i}.mp4", range(10 * i, 10 * i + 40), size=(112, 150))
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    good = [f"clip {i}.mp4,{100 + i}" for i in range(5)]
    (folder / "good.csv").write_text("\n".join(good))
    (folder / "list.csv").write_text("\n".join([*good[:2], "broken.mp4,3", *good[2:], "absent.mp4,4"]))
    return folder


def predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_evaluate_equals_predict_and_goes_on_where_it_stopped(vidprune: Run, videos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = ("evaluate", videos / "good.csv", "--out", run, *TINY, *HERE, "--json")
    done = vidprune(*command)
    assert done.code == 0, done.err
    (report,) = done.rows
    assert report["denominator"] == "5 videos listed, 5 decoded, 0 failed"
    names = [f"clip {i}.mp4" for i in range(5)]
    expected = vidprune("predict", *(videos / name for name in names), *TINY, "--json").rows
    rows = predictions(run)
    assert [Path(row["path"]).name for row in rows] == names
    for row, prediction in zip(rows, expected, strict=True):
        assert row["top5"].split() == [str(score["index"]) for score in prediction["top"]]
        assert float(row["prob"]) == pytest.approx(prediction["top"][0]["prob"], abs=1e-6)
    (top1,) = {accuracy["top1"]["num_correct"] for accuracy in report["accuracies"] if accuracy["average"] == "probs"}
    assert top1 == sum(row["predicted"] == row["label"] for row in rows)
    parts = PredictionStore.open(run).parts()
    again = vidprune(*command)
    assert again.rows == [report]
    assert PredictionStore.open(run).parts() == parts, "nothing was evaluated twice"


def test_other_settings_are_refused_and_named(vidprune: Run, videos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert vidprune("evaluate", videos / "good.csv", "--out", run, *TINY, *HERE).code == 0
    done = vidprune("evaluate", videos / "good.csv", "--out", run, *TINY, *HERE, "--keep-ratio", 0.3, "--num-crops", 2)
    assert done.code == 2
    assert "method.keep_ratio: 0.5 -> 0.3; views.num_crops: 1 -> 2" in done.err
    assert len(done.err.strip().splitlines()) == 1
    done = vidprune("evaluate", videos / "list.csv", "--out", run, *TINY, *HERE)
    assert done.code == 2
    assert "manifest.num_entries: 5 -> 7" in done.err


def test_failures_have_rows_and_reasons_and_an_exit_code(vidprune: Run, videos: Path, tmp_path: Path) -> None:
    command = ("evaluate", videos / "list.csv", *TINY, *HERE)
    done = vidprune(*command, "--out", tmp_path / "run")
    assert done.code == 2
    assert "2 videos failed, --max-failed allows 0" in done.err
    assert "absent.mp4" in done.err
    assert "7 videos listed, 5 decoded, 2 failed" in done.out
    errors = {Path(row["path"]).name: row["error"] for row in predictions(tmp_path / "run")}
    assert [name for name, error in errors.items() if error] == ["broken.mp4", "absent.mp4"]
    assert "no such file" in errors["absent.mp4"]
    assert vidprune(*command, "--out", tmp_path / "run", "--max-failed", 1).code == 2
    assert vidprune(*command, "--out", tmp_path / "run", "--max-failed", 2).code == 0


def test_failed_videos_can_be_tried_again(vidprune: Run, videos: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text("late.mp4,1\n")
    command = ("evaluate", manifest, "--out", tmp_path / "run", *TINY, *HERE)
    assert vidprune(*command).code == 2
    (tmp_path / "late.mp4").write_bytes((videos / "clip 0.mp4").read_bytes())
    assert vidprune(*command).code == 2, "a failure is a result, kept until it is asked for again"
    assert vidprune(*command, "--retry-failed").code == 0
    assert [row["error"] for row in predictions(tmp_path / "run")] == [""]


def test_report_needs_no_model(vidprune: Run, videos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    vidprune("evaluate", videos / "list.csv", "--out", run, *TINY, *HERE)
    written = {name: (run / name).read_text() for name in ("report.md", "metrics.json", "predictions.csv")}
    for name in written:
        (run / name).unlink()
    script = (
        "import sys; from vidprune.cli import main; sys.argv[0] = 'vidprune'\n"
        "try: main()\n"
        "except SystemExit as leave: assert not leave.code, leave.code\n"
        "assert not {'timm', 'av', 'cv2', 'torchvision'} & set(sys.modules)\n"
    )
    command = [sys.executable, "-c", script, "report", str(run), str(run)]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("7 videos listed, 5 decoded, 2 failed") == 2
    assert {name: (run / name).read_text() for name in written} == written
    (tmp_path / "empty").mkdir()
    done = vidprune("report", tmp_path / "empty")
    assert done.code == 2
    assert "is no run" in done.err


def test_any_number_of_processes_gives_the_same_store(
    vidprune: Run, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("evaluate", videos / "list.csv", *TINY, *HERE, "--max-failed", 2)
    assert vidprune(*command, "--out", tmp_path / "one").code == 0
    for rank, world in ((1, 3), (0, 2), (1, 2)):  # a run of three that lost two, then a run of two
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(world))
        done = vidprune(*command, "--out", tmp_path / "many")
        assert done.code == 0
        assert bool(done.out) == (rank == 1 and world == 2), "only the last process speaks"
    one, many = (PredictionStore.open(tmp_path / name) for name in ("one", "many"))
    assert many.table().drop_columns(TIMES).equals(one.table().drop_columns(TIMES))
    assert sum(len(part) for part in many.read()) == 7


def test_torchrun(videos: Path, vidprune: Run, tmp_path: Path) -> None:
    arguments = ["evaluate", str(videos / "good.csv"), *map(str, TINY)]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vidprune"]
    done = subprocess.run(
        [*launch, *arguments, "--out", str(tmp_path / "two"), "--workers", "1"],
        cwd=CHECKOUT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "5 videos listed, 5 decoded, 0 failed" in done.stdout
    vidprune(*arguments, "--out", tmp_path / "one", *HERE)
    two, one = (PredictionStore.open(tmp_path / name) for name in ("two", "one"))
    assert len(two.parts()) >= 2
    assert two.table().drop_columns(TIMES).equals(one.table().drop_columns(TIMES))


def test_a_list_of_19796_videos_of_which_a_handful_exist(vidprune: Run, videos: Path, tmp_path: Path) -> None:
    rows = [f"absent_{i:05d}.mp4,{i % 400}" for i in range(19796)]
    for i in range(5):
        rows[4000 * i] = f"clip {i}.mp4,{i}"
    (tmp_path / "val.csv").write_text("\n".join(rows))
    done = vidprune(
        "evaluate", tmp_path / "val.csv", "--root", videos, "--out", tmp_path / "run", *TINY, "--workers", 1
    )
    assert done.code == 2
    assert "19796 videos listed, 5 decoded, 19791 failed" in done.out
    written = predictions(tmp_path / "run")
    assert len(written) == 19796
    absent = [row for row in written if "no such file" in row["error"]]
    assert len(absent) == 19791
    assert all(row["video_id"] in row["error"] for row in absent)
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["accuracies"][0]["top1_listed"]["num_total"] == 19796
    assert metrics["accuracies"][0]["top1"]["num_total"] == 5
    assert "and 19741 more" in (tmp_path / "run" / "report.md").read_text()


def test_the_api_gives_the_same_report(videos: Path, tmp_path: Path) -> None:
    import vidprune as vp
    from vidprune.config import ModelConfig

    run = vp.RunConfig(
        model=ModelConfig("videomae_tiny"),
        method={"name": "random", "keep_ratio": 0.5},
        views={"num_segments": 2, "num_crops": 1},
        device="cpu",
    )
    seen: list[int] = []
    config = vp.EvaluateConfig(manifest=str(videos / "good.csv"), out=str(tmp_path), run=run, workers=0, store="probs")
    report = vp.evaluate(config, on_row=lambda row: seen.append(row.position))
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert report.is_complete
    assert report.protocol == "videomae v1"
    assert (report.num_kept, report.num_tokens) == (98, 196)
    (accuracy,) = report.accuracies
    assert accuracy.top1 is not None
    assert accuracy.top1.num_total == 5
    probs = np.array(PredictionStore.open(tmp_path).table()["probs"].to_pylist())
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)


def test_random_weights_are_said_to_be_random(vidprune: Run, videos: Path, tmp_path: Path) -> None:
    done = vidprune("evaluate", videos / "good.csv", "--out", tmp_path, *TINY, *HERE)
    assert "random weights, seed 0" in done.out
    header = json.loads((tmp_path / "header.json").read_text())
    assert header["identity"]["protocol_version"] == 1
    assert header["environment"]["packages"]["torch"]
    assert header["config"]["run"]["method"]["keep_ratio"] == 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--timeout-s", 0), "timeout_s must be above 0"),
        (("--store", "scores"), "store must be one of logits, probs"),
        (("--format", "kinetic"), "did you mean 'kinetics'"),
        (("--root", "/nowhere"), "/nowhere"),
        (("--checkpoint", "nowhere.pth"), "nowhere.pth"),
    ],
)
def test_wrong_arguments_give_one_clear_line(
    vidprune: Run, videos: Path, tmp_path: Path, arguments: tuple[object, ...], message: str
) -> None:
    done = vidprune("evaluate", videos / "good.csv", "--out", tmp_path / "run", *TINY, *HERE, *arguments)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_labels_beyond_the_classes_are_refused_before_anything_runs(
    vidprune: Run, videos: Path, tmp_path: Path
) -> None:
    (tmp_path / "list.csv").write_text("clip 0.mp4,400\n")
    done = vidprune("evaluate", tmp_path / "list.csv", "--root", videos, "--out", tmp_path / "run", *TINY, *HERE)
    assert done.code == 2
    assert "400" in done.err
    assert not (tmp_path / "run").exists()


def test_a_proposal_object_is_refused_because_a_header_cannot_name_it(videos: Path, tmp_path: Path) -> None:
    import vidprune as vp
    from vidprune.config import ModelConfig

    proposal = vp.create_proposal("frame_difference")
    method = {"name": "papr", "keep_ratio": 0.5, "proposal": proposal}
    run = vp.RunConfig(model=ModelConfig("videomae_tiny"), method=method, views={"num_segments": 1}, device="cpu")
    with pytest.raises(vp.VidpruneError, match="give proposal by name"):
        vp.evaluate(vp.EvaluateConfig(manifest=str(videos / "good.csv"), out=str(tmp_path / "run"), run=run))
    assert not (tmp_path / "run").exists()
