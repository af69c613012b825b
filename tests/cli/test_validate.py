"""`vidprune validate`: manifests, class folders and configs, right and wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Finished

Run = Callable[..., Finished]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b [1].mp4", "c.mp4"):
        (tmp_path / name).touch()
    return tmp_path


def write(folder: Path, text: str, name: str = "list.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_a_usable_manifest(vidprune: Run, videos: Path) -> None:
    path = write(videos, "a.mp4 0\nb [1].mp4 2\nc.mp4 2\na.mp4 0\n")
    done = vidprune("validate", path, "--num-classes", 4, "--json")
    assert done.code == 0
    (report,) = done.rows
    assert report["kind"] == "manifest"
    assert report["usable"] is True
    assert (report["format"], report["num_videos"], report["num_labelled"]) == ("videomae", 3, 3)
    assert (report["num_classes_seen"], report["label_range"], report["num_empty_classes"]) == (2, [0, 2], 2)
    assert report["fewest"] == [{"label": 0, "num_videos": 1}, {"label": 2, "num_videos": 2}]
    assert report["most"] == [{"label": 2, "num_videos": 2}, {"label": 0, "num_videos": 1}]
    assert (report["num_repeated"], report["num_missing"], report["missing"]) == (1, 0, [])
    assert report["label_order"]["status"] == "unknown"
    assert report["problems"] == []
    screen = vidprune("validate", path, "--num-classes", 4)
    assert screen.code == 0
    assert "usable" in screen.out
    assert "class 0: 1, class 2: 2" in screen.out
    assert "warning: 1 rows repeat a video" in screen.err


def test_missing_files_are_counted_and_the_first_named(vidprune: Run, videos: Path) -> None:
    path = write(videos, "a.mp4 0\n" + "".join(f"gone [{i}].mp4 1\n" for i in range(7)))
    done = vidprune("validate", path, "--json")
    assert done.code == 2
    (report,) = done.rows
    assert report["num_missing"] == 7
    assert report["missing"] == [str(videos / f"gone [{i}].mp4") for i in range(5)]
    assert report["problems"] == [f"7 of 8 files do not exist, the first is {videos / 'gone [0].mp4'}"]
    screen = vidprune("validate", path)
    assert screen.code == 2
    assert f"{videos}/gone [4].mp4" in screen.out, "a path is not broken over two lines"
    assert screen.err.splitlines() == [f"vidprune: error: {report['problems'][0]}"]


def test_root(vidprune: Run, videos: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = write(tmp_path_factory.mktemp("lists"), "a.mp4 0\nc.mp4 1\n")
    done = vidprune("validate", path)
    assert done.code == 2
    assert "none of the 2 files exists" in done.err
    assert "is the root folder right?" in done.err
    assert vidprune("validate", path, "--root", videos).code == 0


def test_one_line_per_problem(vidprune: Run, videos: Path) -> None:
    path = write(videos, "a.mp4 0\nb [1].mp4 5\nc.mp4\na.mp4 1\n")
    done = vidprune("validate", path, "--num-classes", 5)
    assert done.code == 2
    lines = done.err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("vidprune: error: line ") for line in lines)
    many = write(videos, "a.mp4 0\n" + "c.mp4\n" * 30 + "".join(f"{i}.mp4 1\n" for i in range(40)))
    done = vidprune("validate", many)
    assert len(done.err.splitlines()) == 21
    assert "... and 11 more problems; --json lists all" in done.err


def test_the_label_order_is_judged(vidprune: Run, tmp_path: Path) -> None:
    ids = {"jf7RDuUTrsQ": 326, "JTlatknwOrY": 234}
    for name in ids:
        (tmp_path / f"{name}.mp4").touch()
    path = write(tmp_path, "".join(f"{name}.mp4 {label}\n" for name, label in ids.items()))
    done = vidprune("validate", path)
    assert done.code == 2
    assert "JTlatknwOrY has label 234 instead of 233" in done.err
    assert "subtract 1" in done.err
    done = vidprune("validate", path, "--own-label-order")
    assert done.code == 0
    assert "warning: label order differs" in done.err


def test_class_folders_and_class_names(vidprune: Run, tmp_path: Path) -> None:
    for name in ("run", "sit"):
        (tmp_path / "videos" / name).mkdir(parents=True)
        (tmp_path / "videos" / name / "a.mp4").touch()
    assert "places in the sorted list of 2 folders" in vidprune("validate", tmp_path / "videos").err
    names = write(tmp_path, "sit\nrun\nlie\n", "names.txt")
    done = vidprune("validate", tmp_path / "videos", "--class-names", names, "--json")
    assert done.code == 0
    assert done.rows[0]["num_empty_classes"] == 1
    wrong = write(tmp_path, "sit\nwalk\n", "wrong.txt")
    done = vidprune("validate", tmp_path / "videos", "--class-names", wrong)
    assert done.code == 2
    assert "folder run: unknown class 'run'" in done.err


@pytest.mark.parametrize("arguments", [("absent.csv",), ("absent.yaml",), ("absent.csv", "--root", "nowhere")])
def test_what_cannot_be_read_is_one_line(vidprune: Run, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = vidprune("validate", tmp_path / arguments[0], *arguments[1:])
    assert done.code == 2
    assert len(done.err.splitlines()) == 1
    assert done.err.startswith("vidprune: error: ")
    done = vidprune("validate", tmp_path / arguments[0], *arguments[1:], "--json")
    assert (done.code, done.rows[0]["usable"], len(done.rows[0]["problems"])) == (2, False, 1)


GOOD_CONFIG = """
model: {name: videomae_tiny, checkpoint: CHECKPOINT}
method: {name: random, keep_ratio: 0.5}
views: {num_segments: 2, num_crops: 3, protocol: mmaction}
class_names: kinetics400
device: cpu
"""


def test_a_good_config(vidprune: Run, tmp_path: Path) -> None:
    weights = write(tmp_path, "never read", "weights.pth")
    path = write(tmp_path, GOOD_CONFIG.replace("CHECKPOINT", str(weights)), "run.yaml")
    done = vidprune("validate", path, "--json")
    (report,) = done.rows
    assert report["problems"] == []
    assert report["warnings"] == []
    assert (done.code, report["kind"], report["model"]) == (0, "config", "videomae_tiny")
    assert "keep_ratio 0.5" in vidprune("validate", path).out


BAD_CONFIGS = {
    "unknown_key": ("modell: {name: videomae_tiny}", "unknown key 'modell': did you mean 'model'"),
    "unknown_model": ("model: {name: videomae_tyni}", "did you mean 'videomae_tiny'"),
    "no_checkpoint": ("model: {name: videomae_tiny, checkpoint: w.pth}", "checkpoint w.pth does not exist"),
    "no_proposal": (
        "method: {name: papr, keep_ratio: 0.5, proposal: x3d_s, proposal_checkpoint: p.pyth}\n"
        "model: {name: videomae_tiny}",
        "proposal_checkpoint p.pyth does not exist",
    ),
    "keep_ratio": ("{model: {name: videomae_tiny}, method: {name: random, keep_ratio: 1.5}}", "keep_ratio"),
    "views": ("{model: {name: videomae_tiny}, views: {protocol: slowfast}}", "protocol"),
    "views_key": ("{model: {name: videomae_tiny}, views: {segments: 5}}", "views: unknown key 'segments'"),
    "names": ("{model: {name: videomae_tiny}, class_names: nowhere.txt}", "class names 'nowhere.txt'"),
    "names_count": (
        "{model: {name: videomae_tiny}, class_names: imagenet1k}",
        "1000 names for a model of 400 classes",
    ),
    "backend": ("{model: {name: videomae_tiny}, backend: decrod}", "did you mean 'decord'"),
    "device": ("{model: {name: videomae_tiny}, device: tpu}", "device 'tpu' is not usable"),
}


@pytest.mark.parametrize("name", BAD_CONFIGS)
def test_bad_configs(vidprune: Run, tmp_path: Path, name: str) -> None:
    text, message = BAD_CONFIGS[name]
    done = vidprune("validate", write(tmp_path, text, "run.yaml"), "--json")
    assert done.code == 2
    assert any(message in problem for problem in done.rows[0]["problems"]), done.rows[0]["problems"]


def test_all_problems_of_a_config_are_listed_at_once(vidprune: Run, tmp_path: Path) -> None:
    text = "{model: {name: videomae_tiny, checkpoint: w.pth}, views: {protocol: slowfast}, class_names: nowhere.txt}"
    done = vidprune("validate", write(tmp_path, text, "run.yaml"))
    assert done.code == 2
    assert len(done.err.splitlines()) == 3


def test_random_weights_and_shifted_names_are_warned_of(vidprune: Run, tmp_path: Path) -> None:
    from vidprune.evaluation.manifests import RENAMED_KINETICS400
    from vidprune.labels import class_names

    later = sorted(RENAMED_KINETICS400.get(name, name) for name in class_names("kinetics400"))
    names = write(tmp_path, "\n".join(later), "names.txt")
    method = "{name: papr, keep_ratio: 0.5, proposal: x3d_s}"
    text = f"model: {{name: videomae_tiny}}\nmethod: {method}\nclass_names: {names}\n"
    done = vidprune("validate", write(tmp_path, text, "run.yaml"))
    assert done.code == 0
    assert "model videomae_tiny has no checkpoint: its weights are random" in done.err
    assert "proposal x3d_s has no proposal_checkpoint" in done.err
    assert "300 of 400 class names stand at another number" in done.err
