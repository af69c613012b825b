"""Renders scenes of the demo's action set, in memory or as labelled H.264 files with the actor's masks.

    python tools/render_digits.py --split heldout --num-clips 96 --seed 0 --out DIR

Any frames and any crop of a scene can be drawn without drawing the rest; see digit_scenes.py for what is in them.
"""

from __future__ import annotations

import argparse
import csv
import math
from pathlib import Path

import av
import cv2
import numpy as np
from digit_scenes import (
    CLASS_NAMES,
    HEIGHT,
    MARGIN,
    NUM_CLASSES,
    NUM_FRAMES,
    SPLITS,
    SPRITE,
    SPRITE_INK,
    WIDTH,
    Actor,
    Scene,
    make_scene,
)

FPS = 30
CRF = 20  # of x264: about 20 KB a clip, and the digits stay crisp
SPECK_SHADE = 0.3  # the upper part of a speck that is dark
CLEARANCE = 5  # pixels between a digit's ink area and the specks
MASK_SCALE = 4  # masks are kept at a quarter of the resolution


def render(
    scene: Scene,
    frame_numbers: np.ndarray | range,
    top: int = 0,
    left: int = 0,
    height: int = HEIGHT,
    width: int = WIDTH,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws `frame_numbers` of a scene inside one crop.

    Returns:
        frames uint8 [T, height, width, 3] (RGB) and masks uint8 [T, height, width], the actor's opacity 0-255.
    """
    frames = np.empty((len(frame_numbers), height, width, 3), np.uint8)
    masks = np.zeros((len(frame_numbers), height, width), np.uint8)
    for i, t in enumerate(frame_numbers):
        camera_x, camera_y = scene.camera(float(t))
        shift = np.array([[1, 0, camera_x - MARGIN - left], [0, 1, camera_y - MARGIN - top]], np.float64)
        frame = cv2.warpAffine(
            scene.background, shift, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
        _draw_specks(frame, scene, float(t), camera_x - left, camera_y - top)
        for sprite in scene.sprites:
            acting = sprite.motion is not None
            _draw(frame, masks[i] if acting else None, sprite, float(t), camera_x - left, camera_y - top)
        frames[i] = frame
    return frames, masks


def _draw_specks(frame: np.ndarray, scene: Scene, t: float, dx: float, dy: float) -> None:
    """Paints the specks' squares into `frame` in place, but for those that would pass behind a digit.

    One that leaves the stage on one side comes back on the other.
    """
    specks = scene.specks
    x = np.mod(specks[:, 0] + specks[:, 2] * t, WIDTH + 2 * MARGIN) - MARGIN
    y = np.mod(specks[:, 1] + specks[:, 3] * t, HEIGHT + 2 * MARGIN) - MARGIN
    for sprite in scene.sprites:
        sprite_x, sprite_y, _, scale = sprite.pose(t)
        reach = scale * SPRITE_INK / 2 + CLEARANCE
        apart = np.maximum(np.abs(x + specks[:, 4] / 2 - sprite_x), np.abs(y + specks[:, 4] / 2 - sprite_y)) > reach
        specks, x, y = specks[apart], x[apart], y[apart]
    x, y = x + dx, y + dy
    x0, y0 = np.maximum(np.rint(x), 0).astype(int).tolist(), np.maximum(np.rint(y), 0).astype(int).tolist()
    x1, y1 = np.rint(x + specks[:, 4]).astype(int).tolist(), np.rint(y + specks[:, 4]).astype(int).tolist()
    split = np.rint(y + specks[:, 4] * SPECK_SHADE).astype(int).tolist()
    for k, color in enumerate(specks[:, 5:].astype(np.uint8)):
        columns = slice(x0[k], max(x1[k], 0))
        frame[y0[k] : max(split[k], 0), columns] = 255 - color
        frame[max(split[k], 0) : max(y1[k], 0), columns] = color


def _draw(frame: np.ndarray, mask: np.ndarray | None, sprite: Actor, t: float, dx: float, dy: float) -> None:
    """Blends one sprite into `frame` in place, and writes its opacity into `mask`."""
    x, y, angle, scale = sprite.pose(t)
    x, y = x + dx, y + dy
    reach = math.ceil(scale * SPRITE_INK * 0.78)  # half the diagonal of the ink, sheared
    x0, x1 = max(int(x) - reach, 0), min(int(x) + reach + 1, frame.shape[1])
    y0, y1 = max(int(y) - reach, 0), min(int(y) + reach + 1, frame.shape[0])
    if x1 <= x0 or y1 <= y0:
        return
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    a, b = cos, cos * sprite.shear - sin
    c, d = sin, sin * sprite.shear + cos
    half = (SPRITE - 1) / 2
    matrix = np.array([[a, b, x - x0 - a * half - b * half], [c, d, y - y0 - c * half - d * half]])
    alpha = cv2.warpAffine(sprite.alpha, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR)
    region = frame[y0:y1, x0:x1]
    ink = np.empty_like(region)
    ink[:] = sprite.color
    frame[y0:y1, x0:x1] = cv2.blendLinear(region, ink, 1.0 - alpha, alpha)
    if mask is not None:
        mask[y0:y1, x0:x1] = (alpha * 255).astype(np.uint8)


def quarter_masks(masks: np.ndarray) -> np.ndarray:
    """Mean opacity over blocks of MASK_SCALE x MASK_SCALE pixels: uint8 [T, H, W] -> [T, ceil(H / 4), ceil(W / 4)]."""
    num_frames, height, width = masks.shape
    padded = np.pad(masks, ((0, 0), (0, -height % MASK_SCALE), (0, -width % MASK_SCALE))).astype(np.float32)
    rows, columns = padded.shape[1] // MASK_SCALE, padded.shape[2] // MASK_SCALE
    blocks = padded.reshape(num_frames, rows, MASK_SCALE, columns, MASK_SCALE)
    return np.rint(blocks.mean(axis=(2, 4))).astype(np.uint8)


def write_video(path: Path, frames: np.ndarray, crf: int) -> None:
    """Writes uint8 RGB frames [T, H, W, 3] as H.264 (libx264, yuv420p, B-frames) in MP4."""
    with av.open(str(path), "w") as container:
        # One thread, because x264's rate control depends on how many there are.
        options = {"crf": str(crf), "preset": "slow", "threads": "1"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_set(out: Path, split: str, num_clips: int, seed: int, crf: int) -> None:
    """Writes clips 0 to `num_clips` of a split with labels.csv, classes.txt and masks.npz (quarter resolution)."""
    out.mkdir(parents=True, exist_ok=True)
    rows, masks = [], {}
    for index in range(num_clips):
        scene = make_scene(split, seed, index)
        frames, opacity = render(scene, range(NUM_FRAMES))
        name = f"{index:04d}_{scene.digit}_{scene.motion}"
        write_video(out / f"{name}.mp4", frames, crf)
        rows.append((f"{name}.mp4", scene.label, scene.digit, scene.motion))
        masks[name] = quarter_masks(opacity)
    with (out / "labels.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([("file", "label", "digit", "motion"), *rows])
    (out / "classes.txt").write_text("".join(f"{name}\n" for name in CLASS_NAMES))
    np.savez_compressed(out / "masks.npz", **masks)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--split", choices=SPLITS, default="heldout")
    parser.add_argument("--num-clips", type=int, default=4 * NUM_CLASSES, help="balanced over classes if a multiple")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--crf", type=int, default=CRF, help="x264's constant rate factor")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    write_set(args.out, args.split, args.num_clips, args.seed, args.crf)


if __name__ == "__main__":
    main()
