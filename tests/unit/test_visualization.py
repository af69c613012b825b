"""Contact sheets and overlay videos: right pixels in the right places, bounded sizes, files whole or absent."""

from __future__ import annotations

import dataclasses
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vidprune.errors import ConfigError, VidpruneError
from vidprune.types import TokenGrid
from vidprune.visualization import Caption, ViewPicture, contact_sheet, keep_mask, overlay_video, save_picture
from vidprune.visualization.panels import heat_colours, heat_levels, heat_panel, kept_panel
from vidprune.visualization.text import MARGIN, WARNING, header_height, shorten, text_width

CAPTION = Caption(file="clip.mp4", model="videomae_base", method="papr", keep_ratio=0.5, prediction="run", prob=0.5)


def make_view(t: int = 4, side: int = 32, frames_per_tubelet: int = 2, with_map: bool = True) -> ViewPicture:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (t * frames_per_tubelet, side, side, 3), dtype=np.uint8)
    kept = rng.random((t, 4, 4)) < 0.5
    return ViewPicture(frames, kept, rng.random((t, 3, 3)) if with_map else None)


# ---- keep_mask and the checks of ViewPicture


def test_keep_mask_follows_t_h_w_order() -> None:
    mask = keep_mask(np.array([0, 7, 23]), TokenGrid(2, 3, 4))
    assert mask.shape == (2, 3, 4)
    assert [tuple(map(int, where)) for where in np.argwhere(mask)] == [(0, 0, 0), (0, 1, 3), (1, 2, 3)]
    assert np.array_equal(keep_mask(np.array([0, 7, 23, -1, -1]), TokenGrid(2, 3, 4)), mask), "-1 pads"


@pytest.mark.parametrize("kept_index", [np.array([24]), np.array([-2]), np.array([[1]]), np.array([0.5])])
def test_keep_mask_refuses_what_is_no_index(kept_index: np.ndarray) -> None:
    with pytest.raises(ConfigError, match="kept_index"):
        keep_mask(kept_index, TokenGrid(2, 3, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((8, 32, 32, 3))}, "frames must be uint8"),
        ({"frames": np.zeros((8, 32, 30, 3), np.uint8)}, "multiples of the token grid"),
        ({"frames": np.zeros((0, 32, 32, 3), np.uint8)}, "multiples of the token grid"),
        ({"kept": np.ones((4, 4, 4))}, "kept must be bool"),
        ({"proposal_map": np.zeros((3, 3))}, "proposal map must be"),
        ({"proposal_map": np.full((1, 1, 1), np.nan)}, "NaN"),
        ({"frame_numbers": [1, 2]}, "8 frames with 2 frame numbers"),
    ],
)
def test_a_view_checks_its_parts(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(make_view(), **change)


# ---- panels


def test_heat_colours_are_viridis_and_rise_in_lightness() -> None:
    cv2 = pytest.importorskip("cv2")
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    reference = cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1].astype(int)
    assert np.abs(heat_colours().astype(int) - reference).max() <= 7  # between the anchors
    lightness = cv2.cvtColor(heat_colours()[None], cv2.COLOR_RGB2GRAY)[0].astype(int)
    assert (np.diff(lightness[::5]) > 0).all()  # single steps are at the mercy of rounding


def test_heat_levels_equal_torch_trilinear_with_aligned_corners() -> None:
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(1).random((3, 5, 4)) * 7 - 2
    scaled = (values - values.min()) / (values.max() - values.min())
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(scaled)[None, None], size=(8, 17, 13), mode="trilinear", align_corners=True
    )[0, 0]
    np.testing.assert_allclose(heat_levels(values, (8, 17, 13)), expected.numpy(), atol=1e-12)


def test_heat_levels_of_a_constant_map_are_zero() -> None:
    assert (heat_levels(np.full((2, 3, 3), 5.0), (4, 6, 6)) == 0).all()


def test_heat_is_the_same_hue_whatever_the_frame_and_orders_by_level() -> None:
    levels = np.array([[0.0, 0.5, 1.0]])
    dark, bright = (heat_panel(np.full((1, 3, 3), v, np.uint8), levels).astype(int)[0] for v in (0, 255))
    assert (bright > dark).all()
    for panel in (dark, bright):
        assert panel[0].sum() < panel[1].sum() < panel[2].sum()


def test_kept_panel_shows_kept_pixels_and_fades_the_rest() -> None:
    frame = np.random.default_rng(2).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    kept = np.zeros((4, 3), dtype=bool)
    kept[1, 2] = True  # pixels 16..31 x 32..47
    panel = kept_panel(frame, kept)
    # Inside the outline, which leaves the right border open.
    np.testing.assert_array_equal(panel[17:31, 33:48], frame[17:31, 33:48])
    outside = np.ones((64, 48), dtype=bool)
    outside[16:32, 32:48] = False
    assert panel[outside].min() >= 190
    np.testing.assert_array_equal(panel[outside][:, 0], panel[outside][:, 2])  # grey: colour is lost
    assert {tuple(pixel) for pixel in panel[16, 32:48].tolist()} == {(213, 94, 0)}


@pytest.mark.parametrize("everything", [True, False])
def test_no_outline_where_all_or_nothing_is_kept(everything: bool) -> None:
    frame = np.full((32, 32, 3), 10, np.uint8)
    panel = kept_panel(frame, np.full((4, 4), everything))
    assert len(np.unique(panel.reshape(-1, 3), axis=0)) == 1


# ---- words


def test_shorten_keeps_both_ends_and_fits() -> None:
    name = "a_very_long_file_name_" * 20 + "end.mp4"
    short = shorten(name, 17, 300)
    assert text_width(short, 17) <= 300
    assert short.startswith("a_very")
    assert short.endswith("end.mp4")
    assert shorten("short.mp4", 17, 300) == "short.mp4"


@pytest.mark.parametrize("name", ["two\nlines.mp4", "tab\t.mp4", "bytes\udcff.mp4", "Пробу.mp4", "视频.mp4", "", " "])
def test_any_file_name_can_be_drawn(name: str) -> None:
    contact_sheet(make_view(), dataclasses.replace(CAPTION, file=name, prediction=name))


def colours(picture: Image.Image) -> set[tuple[int, ...]]:
    return {colour for _, colour in picture.getcolors(maxcolors=1 << 24) or []}


def test_random_weights_are_announced() -> None:
    view = make_view(with_map=False)
    plain = contact_sheet(view, CAPTION)
    warned = contact_sheet(view, dataclasses.replace(CAPTION, random_weights=True))
    assert warned.height > plain.height
    header = (0, 0, warned.width, header_height(dataclasses.replace(CAPTION, random_weights=True)))
    assert WARNING in colours(warned.crop(header))
    assert WARNING not in colours(plain.crop(header))


# ---- contact sheet


def test_sheet_has_a_row_for_each_kind_of_panel() -> None:
    with_map = contact_sheet(make_view(), CAPTION)
    without = contact_sheet(make_view(with_map=False), CAPTION)
    assert with_map.width == without.width
    assert with_map.height - without.height == 320 + 40  # one row of four cells and its title


def test_sheet_shows_the_first_frame_of_each_tubelet_in_its_place() -> None:
    t, side = 4, 32
    frames = np.stack([np.full((side, side, 3), 20 * i, np.uint8) for i in range(2 * t)])
    view = ViewPicture(frames, np.ones((t, 4, 4), dtype=bool))
    picture = np.asarray(contact_sheet(view, CAPTION))
    y = header_height(CAPTION) + 40 + 160
    shown = [int(picture[y, MARGIN + 160 + column * 326, 0]) for column in range(t)]
    assert shown == [0, 40, 80, 120]


@pytest.mark.parametrize(("t", "side"), [(1, 224), (8, 224), (64, 64), (4, 8)])
@pytest.mark.parametrize("every_frame", [False, True])
def test_sheet_sizes_are_bounded(t: int, side: int, every_frame: bool) -> None:
    picture = contact_sheet(make_view(t, side), CAPTION, every_frame=every_frame)
    assert 720 <= picture.width <= 1960
    assert picture.height <= 1400


def test_long_words_do_not_widen_the_sheet() -> None:
    words = "x" * 5000
    caption = Caption(file=words, model=words, method=words, view=words, prediction=words, prob=1.0)
    assert contact_sheet(make_view(), caption).width == contact_sheet(make_view(), CAPTION).width


def test_an_image_without_words_has_a_sheet() -> None:
    view = ViewPicture(np.zeros((1, 32, 32, 3), np.uint8), np.ones((1, 2, 2), dtype=bool))
    assert contact_sheet(view, Caption()).mode == "RGB"


# ---- overlay video


def decoded(path: Path) -> tuple[list[np.ndarray], object]:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return frames, stream


@pytest.mark.parametrize(("side", "panel_height", "with_map"), [(32, 97, True), (56, 64, False)])
def test_overlay_is_playable_h264(tmp_path: Path, side: int, panel_height: int, with_map: bool) -> None:
    view = make_view(side=side, with_map=with_map)
    path = overlay_video(tmp_path / "new" / "o.mp4", [view, view], CAPTION, fps=7.5, panel_height=panel_height)
    frames, stream = decoded(path)
    assert len(frames) == 2 * len(view.frames)
    assert stream.codec_context.name == "h264"
    assert stream.codec_context.pix_fmt == "yuv420p"
    assert float(stream.average_rate) == 7.5
    assert frames[0].shape[0] % 2 == frames[0].shape[1] % 2 == 0
    assert path.read_bytes().find(b"moov") < path.read_bytes().find(b"mdat")  # can start before it is all there


def test_overlay_keeps_colours_and_places_panels(tmp_path: Path) -> None:
    colour = (200, 60, 30)
    frames = np.full((2, 64, 64, 3), colour, np.uint8)
    view = ViewPicture(frames, np.zeros((1, 4, 4), dtype=bool))
    path = overlay_video(tmp_path / "o.mp4", [view], CAPTION, fps=10, panel_height=128)
    picture = decoded(path)[0][-1].astype(int)
    y = header_height(CAPTION) + 30 + 64
    left, right = picture[y, MARGIN + 64], picture[y, MARGIN + 128 + 12 + 64]
    assert np.abs(left - colour).max() <= 8  # a mix-up of BT.601 and BT.709 would shift this red by 20 and more
    assert right.min() >= 190


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fps": 0}, "fps"),
        ({"fps": float("nan")}, "fps"),
        ({"panel_height": 10}, "panel_height"),
        ({"views": []}, "at least one view"),
        ({"views": [make_view(side=32), make_view(side=64)]}, "differ in size"),
        ({"path": "o.avi"}, ".mp4"),
    ],
)
def test_overlay_refuses_bad_arguments(tmp_path: Path, arguments: dict[str, object], message: str) -> None:
    full = {"path": "o.mp4", "views": [make_view()], "caption": CAPTION, "fps": 10.0, **arguments}
    full["path"] = tmp_path / str(full["path"])
    with pytest.raises(ConfigError, match=message):
        overlay_video(**full)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# ---- files


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """Writes beyond `num_bytes` fail, as they do on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_either(path: Path) -> None:
    if path.suffix == ".png":
        save_picture(contact_sheet(make_view(), CAPTION), path)
    else:
        overlay_video(path, [make_view()], CAPTION, fps=10)


@pytest.mark.parametrize("name", ["o.png", "o.mp4"])
def test_a_full_disk_leaves_the_old_file_and_no_scrap(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    with largest_file(4096), pytest.raises(VidpruneError, match=r"cannot write .*o\.") as caught:
        write_either(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["o.png", "o.mp4"])
def test_an_impossible_place_is_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / name).mkdir()
    for path in (tmp_path / "file" / name, tmp_path / name):
        with pytest.raises(VidpruneError, match="cannot write"):
            write_either(path)
    assert {path.name for path in tmp_path.iterdir()} == {"file", name}


@pytest.mark.parametrize("name", ["o.png", "o.mp4"])
def test_a_second_writing_replaces_the_first(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    write_either(path)
    assert path.read_bytes() != b"old"
    assert path.stat().st_mode & 0o044 == 0o044  # readable by others, unlike a temporary file
    assert list(tmp_path.iterdir()) == [path]


def test_a_picture_is_a_png(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\.png"):
        save_picture(Image.new("RGB", (2, 2)), tmp_path / "o.jpg")


def test_pictures_of_a_real_clip(real_videos: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    frames = []
    with av.open(str(real_videos / "arm_wrestling.mp4")) as container:
        for number, frame in zip(range(64), container.decode(video=0), strict=False):
            if number % 4 == 0:
                frames.append(frame.to_ndarray(format="rgb24")[:224, :224])
    grid = TokenGrid(8, 14, 14)
    centre = np.add.outer(np.zeros(8), np.add.outer(np.abs(np.arange(14) - 6.5), np.abs(np.arange(14) - 6.5)))
    kept = keep_mask(np.sort(np.argsort(centre.ravel(), kind="stable")[:705]), grid)
    view = ViewPicture(np.stack(frames), kept, -centre, range(0, 64, 4))
    sheet = contact_sheet(view, CAPTION)
    top = header_height(CAPTION) + 2 * (40 + 232) + 40
    middle = np.asarray(sheet)[top + 100 : top + 132, MARGIN + 100 : MARGIN + 132].astype(int)
    corner = np.asarray(sheet)[top : top + 20, MARGIN : MARGIN + 20].astype(int)
    assert corner.mean() > 190
    assert middle.std() > 5
    assert len(decoded(overlay_video(tmp_path / "o.mp4", [view], CAPTION, fps=7.5))[0]) == 16
