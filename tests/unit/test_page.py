"""The HTML page: nothing is fetched, file names stay text, and in a real browser its tables sort."""

from __future__ import annotations

import html
import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.stored_runs import DENSE, cost, draw_logits, stored_run
from vidprune.evaluation.compare import compare
from vidprune.evaluation.comparison import Comparison
from vidprune.evaluation.page import Picture, page
from vidprune.evaluation.page_markup import Html, tag
from vidprune.evaluation.page_plots import Point, Series, plot, ticks
from vidprune.evaluation.tables import overview_table

HOSTILE = "</script><script>document.title='owned'</script>\"'><img src=x onerror=\"document.title='owned'\">&amp;|.mp4"
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)


class Elements(html.parser.HTMLParser):
    """Every element with its attributes, and the text of the page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == name]


def make_comparison(folder: Path, labelled: bool = True) -> Comparison:
    """Dense and three keep ratios over 30 videos, one of them of a hostile name and broken."""
    logits = draw_logits(1, 30)
    labels = [int(label) if labelled else None for label in logits.mean(axis=1).argmax(axis=1)]
    names = [HOSTILE, *(f"video {i}" for i in range(1, 30))]
    settings = {
        "dense": (DENSE, cost(180.0), 0.0),
        "z0.9": ({"name": "random", "keep_ratio": 0.9}, cost(160.0), 0.3),
        "z0.50": ({"name": "random", "keep_ratio": 0.5}, cost(80.0), 0.8),
        "old": ({"name": "random", "keep_ratio": 0.3}, None, 1.5),  # made before costs were recorded
    }
    noise = draw_logits(2, 30)
    folders = [
        stored_run(
            folder / name,
            (logits + scale * noise).astype(np.float32),
            labels=labels,
            names=names,
            failed={0},
            method=method,
            facts={"cost": fact, "class_names": [f"<b>{HOSTILE}"] * 7, "config": {"manifest": HOSTILE}},
        )
        for name, (method, fact, scale) in settings.items()
    ]
    return compare(folders)


def test_every_name_stays_text_and_nothing_is_fetched(tmp_path: Path) -> None:
    picture = Picture(HOSTILE, b"\x89PNG")
    text = page(make_comparison(tmp_path), [picture])
    elements = Elements(text)
    assert len(elements.named("script")) == 1
    assert elements.named("b") == [{}] * 4, "those of the four runs' names alone"
    assert [image["alt"] for image in elements.named("img")] == [HOSTILE]
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in elements.named("img"))
    assert elements.text.count(f"cannot decode {HOSTILE!r}: nothing in it") == 4
    assert not [key for _, attributes in elements.found for key in attributes if key.startswith("on")]
    assert not {"link", "iframe", "object", "base"} & {name for name, _ in elements.found}
    assert not re.search(r"url\(|@import|https?://", text), "an address outside the page"
    (policy,) = [meta["content"] for meta in elements.named("meta") if "http-equiv" in meta]
    assert str(policy).startswith("default-src 'none'")


def test_the_page_says_everything_of_a_run(tmp_path: Path) -> None:
    comparison = make_comparison(tmp_path)
    elements = Elements(page(comparison))
    assert len(elements.named("details")) == 3 * len(comparison.runs)
    for run in comparison.runs:
        assert run.report.denominator in elements.text
        assert run.report.digest in elements.text
    for words in ("Classes with the lowest accuracy", "Failures", '"manifest"', '"packages"', "Beside dense"):
        assert words in elements.text
    headers = [header for header in elements.named("th") if "data-kind" in header]
    assert {str(header["data-kind"]) for header in headers} == {"number", "text"}
    assert len(elements.named("button")) == len(headers)


def test_plots_show_what_the_runs_have(tmp_path: Path) -> None:
    labelled = page(make_comparison(tmp_path / "labelled"))
    assert [title in labelled for title in ("Accuracy against cost", "Accuracy against measured speed")] == [True] * 2
    assert "Agreement with dense against cost" in labelled
    unlabelled = page(make_comparison(tmp_path / "unlabelled", labelled=False))
    assert "Accuracy against" not in unlabelled
    assert "Agreement with dense against cost" in unlabelled
    logits = draw_logits(1, 4)
    run = stored_run(tmp_path / "neither", logits, labels=[None] * 4)
    assert "there is nothing to plot" in page(compare([run]))


def test_a_plot_puts_points_and_intervals_where_they_belong() -> None:
    points = (Point(10.0, 50.0, 40.0, 60.0, "first"), Point(20.0, 80.0, 70.0, 90.0, "<second>"))
    text = plot("title", "x", "y", [Series("one", 2, points)])
    places = [tuple(map(float, place)) for place in re.findall(r'<g transform="translate\(([\d.]+) ([\d.]+)\)">', text)]
    (x1, y1), (x2, y2) = places
    below = re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="middle">(\d+)<', text)
    ticks_x = {value: float(x) for x, value in below}
    assert (x1, x2) == (ticks_x["10"], ticks_x["20"])
    beside = re.findall(r'<text x="56" y="([\d.]+)" text-anchor="end">(\d+)<', text)
    ticks_y = {value: float(y) - 4 for y, value in beside}
    assert (y1, y2) == pytest.approx((ticks_y["50"], ticks_y["80"]), abs=0.11)
    bars = re.findall(r'd="M[\d.]+ ([\d.]+)V([\d.]+)M', text)
    assert [tuple(map(float, bar)) for bar in bars] == [
        pytest.approx((ticks_y["40"], ticks_y["60"]), abs=0.11),
        pytest.approx((ticks_y["70"], ticks_y["90"]), abs=0.11),
    ]
    assert "<title>&lt;second&gt;</title>" in text
    assert 'class="series s2"' in text


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.0, 0.0), (81.2, 81.2), (-3, 7), (0, 598.3), (0.00012, 0.00047)])
def test_ticks_are_even_round_and_wide_enough(low: float, high: float) -> None:
    found = ticks(low, high)
    assert found[0] <= low
    assert found[-1] >= high
    assert 2 <= len(found) <= 8
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    assert float(f"{steps[0]:e}".partition("e")[0]) in (1, 2, 5)


def test_only_html_is_markup() -> None:
    assert tag("p", "<b>", Html("<i>"), None, class_="a", data_value='"', hidden=None) == (
        '<p class="a" data-value="&quot;">&lt;b&gt;<i></p>'
    )


WATCH = """<script>window.errors = []; addEventListener("error", (event) => errors.push(event.message));
addEventListener("securitypolicyviolation", (event) => errors.push(event.violatedDirective));</script>"""
CLICK = """<script>
const table = document.querySelector("table");
const state = () => ({
  names: [...table.tBodies[0].rows].map((row) => row.cells[0].textContent),
  sorted: [...table.tHead.rows[0].cells].map((cell) => cell.getAttribute("aria-sort")),
});
const seen = {};
for (const title of ["run", "GFLOPs", "agreement %"]) {
  const button = [...table.querySelectorAll("th button")].find((one) => one.textContent === title);
  button.focus();
  seen[title] = [document.activeElement === button];
  for (const _ of [1, 2]) { button.click(); seen[title].push(state()); }
}
const result = { seen, errors, title: document.title, tables: document.querySelectorAll("tbody").length,
  svgs: [...document.querySelectorAll("figure > svg")].map((svg) => svg.getBoundingClientRect().height) };
document.body.replaceChildren(Object.assign(document.createElement("pre"), { textContent: JSON.stringify(result) }));
</script>"""


@pytest.fixture(scope="module")
def browsed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, dict]:
    """What the page did in a browser: a copy of it, watched and clicked."""
    if BROWSER is None:
        pytest.skip("no chromium or chrome on PATH")
    folder = tmp_path_factory.mktemp("page")
    comparison = make_comparison(folder)
    text = page(comparison).replace("<head>", "<head>" + WATCH).replace("</body>", CLICK + "</body>")
    (folder / "page.html").write_text(text, encoding="utf-8")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command = [BROWSER, *options, f"--user-data-dir={folder / 'profile'}", "--dump-dom", f"file://{folder}/page.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    _, found, rest = done.stdout.partition("<pre>")
    assert found, done.stderr[-2000:]
    return comparison, json.loads(html.unescape(rest.partition("</pre>")[0]))


def test_in_a_browser_tables_and_plots_are_there_and_no_name_ran(browsed: tuple[Comparison, dict]) -> None:
    _, result = browsed
    assert result["errors"] == []
    assert result["title"] == "vidprune: 4 runs"
    assert result["tables"] > 4
    assert len(result["svgs"]) == 3
    assert min(result["svgs"]) > 100


def test_in_a_browser_a_click_on_a_title_sorts(browsed: tuple[Comparison, dict]) -> None:
    comparison, result = browsed
    columns = overview_table(comparison).columns
    expected = {
        "run": (["dense", "old", "z0.9", "z0.50"], ["z0.50", "z0.9", "old", "dense"]),  # numbers in names by value
        "GFLOPs": (["z0.50", "z0.9", "dense", "old"], ["dense", "z0.9", "z0.50", "old"]),  # nothing stays last
        "agreement %": (["old", "z0.50", "z0.9", "dense"], ["z0.9", "z0.50", "old", "dense"]),
    }
    for title, orders in expected.items():
        focused, *states = result["seen"][title]
        assert focused
        for state, names, direction in zip(states, orders, ("ascending", "descending"), strict=True):
            assert state["names"] == names, title
            marks = {name: mark for name, mark in zip(columns, state["sorted"], strict=True) if mark}
            assert marks == {title: direction}
