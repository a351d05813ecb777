"""Pictures for people: a figure of one scene, and encoded pictures to embed in a page.

Figures are drawn on the Agg canvas without pyplot, so that threads and notebooks do not share any state.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from mtdrive.simulation.scene import Scene
from mtdrive.visualization import style
from mtdrive.visualization.bev import draw_bird_view
from mtdrive.visualization.camera import camera_view
from mtdrive.visualization.plan import Plan, Role

DPI = 100
JPEG_QUALITIES = (85, 75, 60, 45, 30)  # the best that fits into JPEG_BYTES is taken
JPEG_BYTES = 60_000


def figure_scene(
    scene: Scene, image: np.ndarray, plans: Sequence[Plan], title: str | None = None, metric: str = "pdms_v1"
) -> Figure:
    """Camera view and bird's-eye view side by side, with a line per plan: colour, label, score, violation.

    image: (H, W, 3) uint8 RGB, the scene's front image. plans: drawn in this order. metric: whose traffic is drawn.
    """
    figure = Figure(figsize=(12.4, 6.6), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    left = figure.add_axes([0.015, 0.235, 0.665, 0.70])
    right = figure.add_axes([0.695, 0.02, 0.29, 0.915])
    left.imshow(camera_view(scene, image, plans, metric=metric), aspect="equal", interpolation="antialiased")
    left.set_axis_off()
    draw_bird_view(right, scene, plans, metric)
    figure.text(0.015, 0.956, title or f"Scene {scene.token}", fontsize=style.LARGE, weight="bold", **style.TEXT)
    _legend(figure, plans)
    return figure


def _legend(figure: Figure, plans: Sequence[Plan]) -> None:
    """A line per plan under the camera view."""
    handles = [
        Line2D([], [], color=colour, linewidth=3 if plan.role == Role.TURN else 1.5,
               dashes=style.DASHES[plan.role])
        for plan, colour in zip(plans, style.plan_colours(plans), strict=True)
    ]  # fmt: skip
    if handles:
        figure.legend(
            handles, [plan.summary for plan in plans], loc="upper left", bbox_to_anchor=(0.01, 0.228), frameon=False,
            ncols=2 if len(plans) > 5 else 1, fontsize=style.NORMAL, labelcolor=style.TEXT["color"], handlelength=2.4,
        )  # fmt: skip


def bird_view_png(
    scene: Scene, plans: Sequence[Plan], width: int = 360, height: int = 480, metric: str = "pdms_v1"
) -> bytes:
    """The bird's-eye view as a PNG with a reduced palette. metric: whose traffic is drawn."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    draw_bird_view(figure.add_axes([0.005, 0.005, 0.99, 0.99]), scene, plans, metric)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    buffer = io.BytesIO()
    picture.quantize(96, dither=Image.Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue()


def camera_view_jpeg(scene: Scene, image: np.ndarray, plans: Sequence[Plan], width: int = 720) -> bytes:
    """The camera view as a JPEG, of lower quality if a busy picture would take more than 60 kB."""
    view = cv2.cvtColor(camera_view(scene, image, plans, width), cv2.COLOR_RGB2BGR)
    for quality in JPEG_QUALITIES:
        _, data = cv2.imencode(".jpg", view, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= JPEG_BYTES:
            break
    return data.tobytes()
