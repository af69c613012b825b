"""`vidprune report` of several runs: what is printed, the files, the pictures."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.cli.conftest import Finished
from tests.stored_runs import DENSE, cost, draw_logits, stored_run

Run = Callable[..., Finished]
LOGITS = draw_logits(1, 12)


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    """Dense and three keep ratios without labels, in the folders a sweep writes."""
    for number, z in enumerate((1.0, 0.7, 0.5, 0.3)):
        method = DENSE if z == 1 else {"name": "random", "keep_ratio": z}
        logits = (LOGITS + number * draw_logits(2, 12)).astype(np.float32)
        folder = tmp_path / "points" / ("dense" if z == 1 else f"z{z}")
        stored_run(folder, logits, labels=[None] * 12, method=method, facts={"cost": cost(180 * z)})
    return tmp_path


def test_a_sweep_is_one_table_and_three_files(vidprune: Run, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = sweep / "new folder"
    done = vidprune("report", sweep, "--html", out / "page.html", "--markdown", out / "t.md", "--csv", out / "t.csv")
    assert done.code == 0, done.err
    lines = [line.split() for line in done.out.splitlines()]
    rows = {line[1]: line for line in lines if line and line[0] in ("dense", "random")}
    assert list(rows) == ["1", "0.7", "0.5", "0.3"]
    written = {row["keep_ratio"]: row for row in csv.DictReader(io.StringIO((out / "t.csv").read_text()))}
    for z in ("0.7", "0.5", "0.3"):
        assert f"{100 * float(written[z]['agreement_by_probs']):.2f}" in rows[z]
        assert f"{float(written[z]['kl_by_probs']):.4f}" in rows[z]
        assert f"{180 * float(z):.4g}" in rows[z]
    assert "every run: 12 videos listed, 12 decoded, 0 failed; 0 have a label" in done.out
    assert (out / "t.md").read_text().startswith("## All runs")
    assert (out / "page.html").read_text().count('<details class="run">') == 4
    assert (sweep / "points" / "z0.5" / "report.md").exists()


def test_max_loss_names_a_run_or_says_what_is_missing(vidprune: Run, sweep: Path) -> None:
    done = vidprune("report", sweep, "--max-loss", 100)
    assert done.code == 0, done.err
    assert "beside dense: take z" in done.out
    told = [json.loads(line) for line in vidprune("report", sweep, "--max-loss", 100, "--json").out.splitlines()]
    assert [run["name"] for run in told if run["chosen"]] == [done.out.split("beside dense: take ")[1].split()[0]]
    alone = vidprune("report", sweep / "points" / "z0.5", "--max-loss", 1)
    assert alone.code == 2
    assert "--max-loss needs a dense run of the same videos beside the others" in alone.err


def test_each_store_is_read_once(vidprune: Run, sweep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once to see which rows count, which takes two columns, and once whole."""
    reads: Counter[tuple[Path, str]] = Counter()
    read_table = pq.read_table

    def counted(path: Path, columns: list[str] | None = None, **options: Any) -> Any:
        reads[path, "whole" if columns is None or "view_logits" in columns else " ".join(columns)] += 1
        return read_table(path, columns=columns, **options)

    monkeypatch.setattr(pq, "read_table", counted)
    done = vidprune(
        "report", sweep, "--html", sweep / "page.html", "--markdown", sweep / "t.md", "--csv", sweep / "t.csv"
    )
    assert done.code == 0, done.err
    parts = list(sweep.glob("points/*/parts/*.parquet"))
    assert len(parts) == 8
    assert reads == {(part, what): 1 for part in parts for what in ("position error", "whole")}


def test_few_runs_stand_beside_each_other(vidprune: Run, sweep: Path) -> None:
    done = vidprune("report", sweep / "points" / "z0.5", sweep / "points" / "dense")
    assert done.code == 0
    assert "precision, device" in done.out
    assert "agree-" in done.out
    alone = vidprune("report", sweep / "points" / "z0.5")
    assert "agree-" not in alone.out
    assert "no dense run" not in alone.out, "nothing to compare with is nothing to warn of"


def test_json_gives_a_line_per_run(vidprune: Run, sweep: Path) -> None:
    rows = vidprune("report", sweep, "--json").rows
    assert [row["name"] for row in rows] == ["dense", "z0.3", "z0.5", "z0.7"]
    assert [row["compared_with"] for row in rows] == [None, "dense", "dense", "dense"]
    assert rows[1]["cost"]["vit_gmacs"] == pytest.approx(54)
    assert {one["average"] for one in rows[1]["agreements"]} == {"probs", "logits"}


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped model on two of its clips and a file that is none."""
    import vidprune as vp
    from vidprune.config import ModelConfig

    folder = tmp_path_factory.mktemp("demo")
    clips = sorted(vp.demo_file("clips").glob("*.mp4"))[:2]
    copies = [shutil.copy(clip, folder / clip.name) for clip in clips]
    (folder / "broken.mp4").write_bytes(b"no video")
    (folder / "list.csv").write_text("\n".join(f"{path},0" for path in ("broken.mp4", *copies)))
    run = vp.RunConfig(
        model=ModelConfig("demo"),
        method={"name": "papr", "keep_ratio": 0.3},
        views={"num_segments": 1, "num_crops": 1},
        class_names="demo",
        device="cpu",
    )
    config = vp.EvaluateConfig(manifest=str(folder / "list.csv"), out=str(folder / "run"), run=run, workers=0)
    vp.evaluate(config)
    return folder


def test_pictures_are_of_the_first_videos_that_can_be_read(vidprune: Run, demo_run: Path, tmp_path: Path) -> None:
    first, second = sorted(demo_run.glob("0*.mp4"))
    kept = first.read_bytes()
    html = tmp_path / "page.html"
    done = vidprune("report", demo_run / "run", "--html", html, "--pictures", 1)
    assert done.code == 0, done.err
    assert f"{first.name} in run" in html.read_text()
    first.unlink()
    try:
        done = vidprune("report", demo_run / "run", "--html", html, "--pictures", 5)
    finally:
        first.write_bytes(kept)
    assert done.code == 0, done.err
    assert "no picture" in done.err
    (data,) = re.findall(r'src="data:image/png;base64,(.*?)"', html.read_text())
    sheet = Image.open(io.BytesIO(base64.b64decode(data)))
    assert sheet.format == "PNG"
    assert sheet.width > 500
    assert f"{second.name} in run" in html.read_text()


def test_a_run_whose_model_cannot_be_built_again_has_no_pictures(
    vidprune: Run, sweep: Path, demo_run: Path, tmp_path: Path
) -> None:
    html = tmp_path / "page.html"
    done = vidprune("report", sweep, "--html", html, "--pictures", 1)
    assert done.code == 2
    assert "does not say how its model was built" in done.err
    copy = Path(shutil.copytree(demo_run / "run", tmp_path / "copy"))
    header = json.loads((copy / "header.json").read_text())
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"other weights")
    header["config"]["run"]["model"] = {"name": "videomae_tiny", "checkpoint": str(weights)}
    (copy / "header.json").write_text(json.dumps(header))
    done = vidprune("report", copy, "--html", html, "--pictures", 1)
    assert done.code == 2
    assert "is no longer the file that copy was made with" in done.err
    assert not html.exists()
    done = vidprune("report", demo_run / "run", "--pictures", 1)
    assert done.code == 2
    assert "--pictures needs a page" in done.err
