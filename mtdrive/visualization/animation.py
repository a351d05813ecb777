"""The 4 s of a scene as a moving picture: recorded traffic, and the ego as it drives each turn's plan."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np
from matplotlib.artist import Artist
from PIL import Image

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.scene import NUM_STEPS, STEP, Scene
from mtdrive.visualization import style
from mtdrive.visualization.bev import draw_ground, draw_moment
from mtdrive.visualization.camera_view import camera_moment, camera_view
from mtdrive.visualization.figure import MARGIN, TITLE, draw_legend, legend_height, panels, pixels
from mtdrive.visualization.plan import Plan

EVERY = 2  # simulation steps from frame to frame
HOLD = 1.2  # [s] that the last frame stays
CAMERA_WIDTH, BIRD_WIDTH = 5.6, 2.5  # [in]
COLOURS = 112  # of a GIF, besides those of the drawing


def frames(
    scene: Scene, image: np.ndarray, plans: Sequence[Plan], title: str | None = None, metric: str = "pdms_v1"
) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3) uint8 RGB from t0 to 4 s, every EVERY * 0.1 s; H and W are even.

    The camera saw t0 alone: its view stays, and the ground under the moving ego is outlined in it.
    """
    height = TITLE + CAMERA_WIDTH * image.shape[0] / image.shape[1] + legend_height(plans) + MARGIN
    figure, (left, right) = panels(image, CAMERA_WIDTH, BIRD_WIDTH, height, title=title or f"Scene {scene.token}")
    width = round(CAMERA_WIDTH * figure.dpi)
    view = camera_view(scene, image, plans, width, metric, violations=False)
    shown = left.imshow(view, aspect="equal")
    draw_ground(right, scene, plans, metric)
    draw_legend(figure, left, plans)
    plain = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
    clock = right.text(0.04, 0.975, "", transform=right.transAxes, fontsize=style.LARGE, weight="bold", va="top",
                       zorder=11, bbox=plain, **style.TEXT)  # fmt: skip
    lasting: set[Artist] = set(right.get_children())
    for step in range(0, NUM_STEPS, EVERY):
        clock.set_text(f"{step * STEP:.1f} s")
        shown.set_data(camera_moment(scene, view, plans, step, metric, image.shape))
        draw_moment(right, scene, plans, step, metric)
        frame = pixels(figure)
        yield frame[: len(frame) // 2 * 2, : frame.shape[1] // 2 * 2].copy()
        for artist in set(right.get_children()) - lasting:
            artist.remove()


def write_gif(path: Path, pictures: Iterator[np.ndarray]) -> None:
    """An endless GIF whose frames share one palette, so that only what moves is stored again."""
    first, *rest = map(Image.fromarray, pictures)
    common = (rest[-1].quantize(COLOURS, dither=Image.Dither.NONE).getpalette() or [])[: 3 * COLOURS]
    drawn = [component for colour in style.palette() for component in style.rgb(colour)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(drawn + common)
    paletted = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in (first, *rest)]
    durations = [round(1000 * STEP * EVERY)] * len(rest) + [round(1000 * HOLD)]
    with atomic_path(path) as temporary:
        paletted[0].save(temporary, "GIF", save_all=True, append_images=paletted[1:], duration=durations, loop=0)


def write_mp4(path: Path, pictures: Iterator[np.ndarray]) -> None:
    """An MP4 (MPEG-4 Part 2), written by OpenCV.

    Raises:
        MTDriveError: this OpenCV was built without the encoder.
    """
    first = next(pictures)
    size, rate = first.shape[1::-1], 1 / (STEP * EVERY)
    with atomic_path(path) as temporary, TemporaryDirectory() as folder:
        video = Path(folder, "video.mp4")  # OpenCV goes by the name, and does not say that a disk is full
        writer = cv2.VideoWriter(str(video), cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
        if not writer.isOpened():
            raise MTDriveError("This build of OpenCV cannot write MP4; use format=gif.")
        last = first
        for picture in (first, *pictures):
            last = picture
            writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
        for _ in range(round(HOLD * rate)):
            writer.write(cv2.cvtColor(last, cv2.COLOR_RGB2BGR))
        writer.release()
        shutil.copyfile(video, temporary)


WRITERS: dict[str, Callable[[Path, Iterator[np.ndarray]], None]] = {"gif": write_gif, "mp4": write_mp4}
