"""Manifests: every format against rows written by hand, round trips of hard paths, and one clear line per problem."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import REPOSITORY
from vidprune.errors import ConfigError, UnknownNameError
from vidprune.evaluation.manifests import ClassLookup, find_missing, read_manifest, scan_manifest
from vidprune.labels import class_names

REAL_LIST = REPOSITORY.parent / "shared" / "data" / "kinetics400" / "val_list_mmaction.txt"

Expected = list[tuple[str, str, int | None]]  # id, path below the manifest's folder, label

# name: (content, format, expected rows)
LISTS: dict[str, tuple[str, str, Expected]] = {
    "videomae": ("v/a.mp4 3\nv/b.mkv 0\n", "videomae", [("v/a", "v/a.mp4", 3), ("v/b", "v/b.mkv", 0)]),
    "videomae_comma": ("v/a.mp4,3\nv/b.mp4, 0\n", "videomae", [("v/a", "v/a.mp4", 3), ("v/b", "v/b.mp4", 0)]),
    "tabs": ("v/a.mp4\t3\nv/b.mp4\t0\n", "videomae", [("v/a", "v/a.mp4", 3), ("v/b", "v/b.mp4", 0)]),
    "mmaction_3": ("v/a.mp4 300 3\nv/b.mp4 290 0\n", "mmaction", [("v/a", "v/a.mp4", 3), ("v/b", "v/b.mp4", 0)]),
    "mmaction_no_suffix": ("-a_b 299 325\nc 294 233\n", "mmaction", [("-a_b", "-a_b", 325), ("c", "c", 233)]),
    "paths": ("v/a.mp4\nv/b.mp4\n", "paths", [("v/a", "v/a.mp4", None), ("v/b", "v/b.mp4", None)]),
    "spaces": (
        "my clips/salt, pepper 12.mp4 3\nmy clips/b 7.mp4 0\n",
        "videomae",
        [("my clips/salt, pepper 12", "my clips/salt, pepper 12.mp4", 3), ("my clips/b 7", "my clips/b 7.mp4", 0)],
    ),
    "spaces_no_suffix": (
        "take one 2 5\ntake two 6\nlast take 7\n",
        "videomae",
        [("take one 2", "take one 2", 5), ("take two", "take two", 6), ("last take", "last take", 7)],
    ),
    "quoted_by_pandas": ('"my clip.mp4" 3\nb.mp4 0\n', "videomae", [("my clip", "my clip.mp4", 3), ("b", "b.mp4", 0)]),
    "quoted_comma": ('"a, ""b"".mp4",3\nc.mp4,0\n', "videomae", [('a, "b"', 'a, "b".mp4', 3), ("c", "c.mp4", 0)]),
    "windows": ("\ufeffa.mp4 3\r\n\r\nb.mp4 0\r\n", "videomae", [("a", "a.mp4", 3), ("b", "b.mp4", 0)]),
    "comments": ("# path label\n\n  a.mp4 3  \n#b.mp4 1\nc.mp4 0", "videomae", [("a", "a.mp4", 3), ("c", "c.mp4", 0)]),
    "dots": (
        "./v/../v//x.v1.mp4 1\nx.v2.mp4 2\nx.MP4 3\n",
        "videomae",
        [("v/x.v1", "v/x.v1.mp4", 1), ("x.v2", "x.v2.mp4", 2), ("x", "x.MP4", 3)],
    ),
    "same_name_in_two_folders": ("p/a.mp4 1\nq/a.mp4 2\n", "videomae", [("p/a", "p/a.mp4", 1), ("q/a", "q/a.mp4", 2)]),
    "same_stem": ("a.mp4 1\na.avi 2\n", "videomae", [("a.mp4", "a.mp4", 1), ("a.avi", "a.avi", 2)]),
    "header": ("file,label,digit\na.mp4,3,7\n", "csv", [("a", "a.mp4", 3)]),
    "header_no_label": ("video\nmy clip.mp4\n", "csv", [("my clip", "my clip.mp4", None)]),
    "unicode_line_separators": (
        "a\u2028b\x0c\x85.mp4 3\n",
        "videomae",
        [("a\u2028b\x0c\x85", "a\u2028b\x0c\x85.mp4", 3)],
    ),
}


def rows(manifest, folder: Path) -> Expected:
    return [(e.video_id, os.path.relpath(e.path, folder), e.label) for e in manifest.entries]


@pytest.mark.parametrize("name", LISTS)
def test_lists(tmp_path: Path, name: str) -> None:
    content, format, expected = LISTS[name]
    path = tmp_path / "list.txt"
    path.write_bytes(content.encode())
    manifest = read_manifest(path)
    assert rows(manifest, tmp_path) == expected
    assert (manifest.format, manifest.source, manifest.warnings) == (format, str(path), ())


def test_a_list_written_by_powershell(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("a.mp4 3\r\nb.mp4 0\r\n".encode("utf-16"))
    assert rows(read_manifest(path), tmp_path) == [("a", "a.mp4", 3), ("b", "b.mp4", 0)]


def test_a_given_format_decides_what_cannot_be_told(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("clip 12 5\n")
    assert rows(read_manifest(path), tmp_path) == [("clip", "clip", 5)]
    assert rows(read_manifest(path, format="videomae"), tmp_path) == [("clip 12", "clip 12", 5)]
    assert rows(read_manifest(path, format="paths"), tmp_path) == [("clip 12 5", "clip 12 5", None)]


NAMES = st.text(st.characters(exclude_characters="/\n\r\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
SAFE = NAMES.filter(lambda name: name.strip("."))  # dots alone before .mp4 make a hidden file without suffix


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(SAFE, st.integers(0, 399)), min_size=1, max_size=8, unique_by=lambda row: row[0]),
    st.sampled_from(["{path} {label}", "{path},{label}", "{path} 300 {label}", "{path}\t{label}", "{path}"]),
    st.sampled_from(["\n", "\r\n"]),
)
def test_any_path_with_a_suffix_comes_back(videos: list[tuple[str, int]], line: str, end: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "list.csv"
        text = "".join(line.format(path=f"v/{name}.mp4", label=label) + end for name, label in videos)
        path.write_bytes(text.encode())
        entries = read_manifest(path).entries
        labels = [label if "label" in line else None for _, label in videos]
        assert [(str(e.path), e.label) for e in entries] == [
            (f"{folder}/v/{name}.mp4", label) for (name, _), label in zip(videos, labels, strict=True)
        ]
        assert [e.video_id for e in entries] == [f"v/{name}" for name, _ in videos]


def test_root_moves_the_files_and_not_the_ids(tmp_path: Path) -> None:
    lists, videos = tmp_path / "lists", tmp_path / "videos"
    lists.mkdir()
    videos.mkdir()
    path = lists / "list.txt"
    path.write_text(f"p/a.mp4 1\n{videos}/p/b.mp4 2\n/elsewhere/c.mp4 3\n")
    manifest = read_manifest(path, root=videos)
    assert [e.video_id for e in manifest.entries] == ["p/a", "p/b", "/elsewhere/c"]
    assert [e.path for e in manifest.entries] == [videos / "p/a.mp4", videos / "p/b.mp4", Path("/elsewhere/c.mp4")]
    assert read_manifest(path).entries[0].path == lists / "p/a.mp4"
    with pytest.raises(ConfigError, match=r"root .*nowhere is not a folder"):
        read_manifest(path, root=tmp_path / "nowhere")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_missing_suffixes_are_found_on_disk(tmp_path: Path) -> None:
    touch(tmp_path, "a.webm", "p/b.MKV", "both.avi", "both.mp4", "d_000010_000020.mp4", "v1.2.mp4", "bare", "x.txt")
    touch(tmp_path, "two_000001_000011.mp4", "two_000020_000030.mp4")
    path = tmp_path / "list.txt"
    names = ["a", "p/b", "both", "d", "v1.2", "bare", "x", "two", "none"]
    path.write_text("\n".join(f"{name} {i}" for i, name in enumerate(names)))
    manifest = read_manifest(path)
    files = [e.path.relative_to(tmp_path).as_posix() for e in manifest.entries]
    assert files == ["a.webm", "p/b.MKV", "both.mp4", "d_000010_000020.mp4", "v1.2.mp4", "bare", "x", "two", "none"]
    assert [e.video_id for e in manifest.entries] == names
    assert manifest.warnings == (
        "line 3: both could be both.avi or both.mp4; both.mp4 is taken",
        "line 8: two could be two_000001_000011.mp4 or two_000020_000030.mp4; none is taken, list the one you mean",
    )
    assert [e.video_id for e in find_missing(manifest)] == ["x", "two", "none"]


@pytest.mark.parametrize(("suffix", "num_listings"), [("", 2), (".mp4", 0)])
def test_folders_are_listed_once_and_files_never_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, num_listings: int
) -> None:
    touch(tmp_path, *(f"{folder}/{i}.mp4" for folder in "pq" for i in range(50)))
    path = tmp_path / "list.txt"
    path.write_text("".join(f"{folder}/{i}{suffix} 1\n" for folder in "pq" for i in range(50)))
    listed = []
    scandir = os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: listed.append(folder) or scandir(folder))
    monkeypatch.setattr(os.path, "isfile", lambda file: pytest.fail(f"asked for {file}"))
    assert len(read_manifest(path).entries) == 100
    assert len(listed) == num_listings


KINETICS = """label,youtube_id,time_start,time_end,split
arm wrestling,jf7RDuUTrsQ,10,20,val
using segway,aaaaaaaaaaa,5,15,val
"skiing (not slalom or crosscountry)",bbbbbbbbbbb,0,10,val
inflating balloons,ccccccccccc,123,133,val
"""


def test_kinetics_annotation(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    touch(videos, "jf7RDuUTrsQ_000010_000020.mp4", "using_segway/aaaaaaaaaaa_000005_000015.mkv", "bbbbbbbbbbb.mp4")
    touch(videos, "ccccccccccc_000001_000011.mp4")  # another part of that video is never taken in its place
    path = tmp_path / "val.csv"
    path.write_text(KINETICS)
    manifest = read_manifest(path, root=videos)
    assert manifest.format == "kinetics"
    assert rows(manifest, videos) == [
        ("jf7RDuUTrsQ_000010_000020", "jf7RDuUTrsQ_000010_000020.mp4", 6),
        ("aaaaaaaaaaa_000005_000015", "using_segway/aaaaaaaaaaa_000005_000015.mkv", 375),
        ("bbbbbbbbbbb_000000_000010", "bbbbbbbbbbb.mp4", 308),
        ("ccccccccccc_000123_000133", "ccccccccccc_000123_000133", 12),
    ]
    assert [e.label for e in find_missing(manifest)] == [12]


def test_kinetics_labels_follow_the_given_names(tmp_path: Path) -> None:
    path = tmp_path / "val.csv"
    path.write_text("label,youtube_id,time_start,time_end,split\nrun,a,0,10,val\nsit,b,0,10,test\n")
    manifest = read_manifest(path, class_names=("sit", "run"))
    assert [e.label for e in manifest.entries] == [1, 0]
    assert manifest.warnings == ("rows of 2 splits are read together: test, val",)
    path.write_text("youtube_id,time_start,time_end,split\na,0,10,test\n")
    assert rows(read_manifest(path), tmp_path) == [("a_000000_000010", "a_000000_000010", None)]


def test_folder_of_class_folders(tmp_path: Path) -> None:
    touch(tmp_path, "sit/b.mp4", "sit/a.webm", "run/deep/c.avi", "run/notes.txt", ".cache/x.mp4", "lie/.hidden.mp4")
    touch(tmp_path, "stray.mp4")
    manifest = read_manifest(tmp_path, class_names=("run", "sit", "lie"))
    assert rows(manifest, tmp_path) == [
        ("run/deep/c", "run/deep/c.avi", 0),
        ("sit/a", "sit/a.webm", 1),
        ("sit/b", "sit/b.mp4", 1),
    ]
    assert manifest.format == "folder"
    assert manifest.warnings == (
        f"1 videos directly in {tmp_path} are in no class folder and are left out",
        "class folder 'lie' holds no video",
    )


@pytest.mark.parametrize(
    ("folders", "num_classes", "labels", "warning"),
    [
        (["10", "9"], None, [10, 9], None),
        (["sit", "run"], None, [0, 1], "places in the sorted list of 2 folders, 'run' = 0 to 'sit' = 1"),
        (["zumba", "arm_wrestling", "inflating balloons"], None, [6, 12, 399], "numbers in Kinetics-400"),
        (["zumba", "arm wrestling"], 2, [0, 1], "places in the sorted list"),
    ],
)
def test_folders_without_class_names(
    tmp_path: Path, folders: list[str], num_classes: int | None, labels: list[int], warning: str | None
) -> None:
    touch(tmp_path, *(f"{folder}/a.mp4" for folder in folders))
    manifest = read_manifest(tmp_path, num_classes=num_classes)
    assert [e.label for e in manifest.entries] == labels
    assert len(manifest.warnings) == (warning is not None)
    assert all(warning in text for text in manifest.warnings)


def test_a_folder_of_videos_has_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4", "a b.mkv", "notes.txt")
    assert rows(read_manifest(tmp_path), tmp_path) == [("a b", "a b.mkv", None), ("b", "b.mp4", None)]


def test_repeated_rows(tmp_path: Path) -> None:
    touch(tmp_path, "b.mp4")
    path = tmp_path / "list.txt"
    path.write_text("a.mp4 1\nb 2\n./a.mp4 1\nb.mp4 2\n")
    manifest = read_manifest(path)
    assert [(e.video_id, e.label) for e in manifest.entries] == [("a", 1), ("b", 2)]
    assert manifest.num_repeated == 2
    assert manifest.warnings == ("2 rows repeat a video with the same label and are left out: line 3, line 4",)


PROBLEMS: dict[str, tuple[str | bytes, str]] = {
    "two_labels": ("a.mp4 1\n\na.mp4 2\n", "line 3: a.mp4 has label 2, but label 1 in line 1"),
    "no_label": ("a.mp4 1\nb.mp4\nc.mp4 2\n", "line 2: expected 'path label' with whole numbers after the path"),
    "word_label": ("a.mp4 1\nb.mp4 run\nc.mp4 2\n", "line 2: expected 'path label'"),
    "float_label": ("a.mp4 1\nb.mp4 2.0\nc.mp4 2\n", "line 2: expected 'path label'"),
    "columns": ("a.mp4 1\nb.mp4 2\nc.mp4 300 2\n", "line 3: expected 'path label', got 2 numbers after the path"),
    "many_columns": ("a.mp4 3 1 2\n", "line 1: expected 'path num_frames label', got 3 numbers"),
    "negative": ("a.mp4 -1\n", "line 1: label -1 of a.mp4 must be from 0 to 9"),
    "too_high": ("a.mp4 9\nb.mp4 10\n", "line 2: label 10 of b.mp4 must be from 0 to 9; do the labels count from 1?"),
    "label_alone": ("a.mp4 1\n3\nb.mp4 2\n", "line 2: expected 'path label'"),
    "empty": ("", "no video is listed"),
    "only_comments": ("# nothing\n\n", "no video is listed"),
    "latin1": (b"a.mp4 1\ncaf\xe9.mp4 2\n", "line 2: not UTF-8"),
    "binary": (b"a\0b", "not a text file"),
    "shared_id": ("a.mp4 1\na.mkv 2\na.mp4.mp4 3\n", "shares the id 'a.mp4' with another video"),
    "csv_columns": ("path,label\na.mp4,1\nb.mp4\n", "line 3: 1 columns under a header of 2"),
    "csv_quote": ('path,label\n"a.mp4,1\n', "line 2: not valid CSV"),
    "csv_class": (
        "path,label\na.mp4,runn\n",
        "line 2: unknown class 'runn' among 10 class names; the nearest is 'run'",
    ),
    "csv_no_path": ("path,label\n,1\n", "line 2: no path"),
    "kinetics_class": ("label,youtube_id,time_start,time_end\nfly,a,0,10\n", "line 2: unknown class 'fly'"),
    "kinetics_time": ("label,youtube_id,time_start,time_end\nrun,a,x,10\n", "line 2: time_start and time_end must be"),
    "kinetics_no_times": ("label,youtube_id\nrun,a\n", "line 2: time_start and time_end must be"),
    "kinetics_no_id": ("label,youtube_id,time_start,time_end\nrun,,0,10\n", "line 2: no youtube_id"),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_is_one_line_that_names_its_line(tmp_path: Path, name: str) -> None:
    content, message = PROBLEMS[name]
    path = tmp_path / "list.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ConfigError) as caught:
        read_manifest(path, class_names=("run", *(f"c{i}" for i in range(9))))
    assert message in str(caught.value)
    assert "list.txt" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scan_lists_every_problem_and_keeps_the_right_rows(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("a.mp4 1\nb.mp4\nc.mp4 400\nd.mp4 2\n")
    manifest, problems = scan_manifest(path, num_classes=400)
    assert [e.video_id for e in manifest.entries] == ["a", "d"]
    assert [problem.partition(":")[0] for problem in problems] == ["line 2", "line 3"]
    with pytest.raises(ConfigError, match=r"line 2: .* \(and 1 more problems\)"):
        read_manifest(path, num_classes=400)


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "k400/train/x/a.mp4", "k400/val/x/a.mp4", "clip.mp4", "empty/x")
    path = tmp_path / "list.txt"
    path.write_text("a.mp4 1\n")
    with pytest.raises(ConfigError, match=r"holds splits, not classes \(train, val\)"):
        read_manifest(tmp_path / "k400")
    with pytest.raises(ConfigError, match="is a video by its suffix"):
        read_manifest(tmp_path / "clip.mp4")
    with pytest.raises(ConfigError, match="No such file"):
        read_manifest(tmp_path / "absent.txt")
    with pytest.raises(ConfigError, match="no video is listed"):
        read_manifest(tmp_path / "empty")
    with pytest.raises(ConfigError, match="is no folder, but its format is given as folder"):
        read_manifest(path, format="folder")
    with pytest.raises(ConfigError, match="is a folder, but its format is given as mmaction"):
        read_manifest(tmp_path / "k400" / "val", format="mmaction")
    with pytest.raises(ConfigError, match="format kinetics needs a header"):
        read_manifest(path, format="kinetics")
    with pytest.raises(UnknownNameError, match="did you mean 'videomae'"):
        read_manifest(path, format="videomea")
    touch(tmp_path, "classes/runn/a.mp4")
    with pytest.raises(
        ConfigError, match="folder runn: unknown class 'runn' among 2 class names; the nearest is 'run'"
    ):
        read_manifest(tmp_path / "classes", class_names=("run", "sit"))


def test_class_lookup_tells_near_names_apart() -> None:
    lookup = ClassLookup(class_names("kinetics400"))
    assert lookup.index("passing_American_football_(in_game)") == 208
    assert lookup.index("passing American football (not in game)") == 209
    assert lookup.index("Massaging Persons Head") is None, "an apostrophe parts words"
    assert lookup.index("tying necktie") == lookup.index("tying tie")
    assert ClassLookup(("a b", "a_b", "c")).index("A B") is None, "two names that differ in punctuation alone"
    assert ClassLookup(("a b", "a_b", "c")).index("a_b") == 1


@pytest.mark.skipif(not REAL_LIST.is_file(), reason=f"no real list at {REAL_LIST}")
def test_the_real_validation_list() -> None:
    manifest = read_manifest(REAL_LIST, num_classes=400)
    assert (len(manifest.entries), manifest.format, manifest.warnings) == (19796, "mmaction", ())
    assert len({e.video_id for e in manifest.entries}) == 19796
    by_id = {e.video_id: e.label for e in manifest.entries}
    for line in REAL_LIST.read_text().splitlines():
        youtube_id, _, label = line.split(" ")
        assert by_id[youtube_id] == int(label)
