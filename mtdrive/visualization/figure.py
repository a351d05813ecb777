"""Pictures for people: a figure of one scene, and encoded pictures to embed in a page.

Figures are drawn on the Agg canvas without pyplot, so that threads and notebooks do not share any state.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import cv2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.scene import Scene
from mtdrive.visualization import style
from mtdrive.visualization.bev import draw_bird_view
from mtdrive.visualization.camera_view import camera_view
from mtdrive.visualization.conversation_panel import WIDTH as CONVERSATION_WIDTH
from mtdrive.visualization.conversation_panel import conversation_height, draw_conversation
from mtdrive.visualization.plan import Plan, Role
from mtdrive.visualization.turns import DrawnTurn

DPI = 100
JPEG_QUALITIES = (85, 75, 60, 45, 30)  # the best that fits is taken
JPEG_BYTES, FIGURE_BYTES = 60_000, 75_000
HEIGHT, MARGIN, GAP, TITLE = 6.6, 0.19, 0.2, 0.43  # [in]
CAMERA_WIDTH, BIRD_WIDTH = 8.22, 3.6  # [in]


def figure_scene(
    scene: Scene,
    image: np.ndarray,
    plans: Sequence[Plan],
    title: str | None = None,
    metric: str = "pdms_v1",
    turns: Sequence[DrawnTurn] = (),
) -> Figure:
    """Camera view and bird's-eye view side by side, with a line per plan: colour, label, score, violation.

    image: (H, W, 3) uint8 RGB, the scene's front image. plans: drawn in this order. metric: whose traffic is drawn.
    turns: the conversation to put beside them; their plans are among `plans`.
    """
    height = max(HEIGHT, conversation_height(turns) + TITLE + MARGIN)
    title = title or f"Scene {scene.token}"
    figure, (left, right, *column) = panels(
        image, CAMERA_WIDTH, BIRD_WIDTH, height, conversation=bool(turns), title=title
    )
    left.imshow(camera_view(scene, image, plans, metric=metric), aspect="equal", interpolation="antialiased")
    draw_bird_view(right, scene, plans, metric)
    for axes in column:
        draw_conversation(axes, turns, score_version(metric).title)
    draw_legend(figure, left, plans)
    return figure


def panels(
    image: np.ndarray, camera: float, bird: float, height: float, *, conversation: bool = False, title: str = ""
) -> tuple[Figure, list[Axes]]:
    """A figure with axes for camera view, bird's-eye view and, if wanted, conversation, from left to right.

    camera, bird: widths [in] of the first two; the first has the shape of the image. height: of the figure [in].
    """
    boxes = [(camera, camera * image.shape[0] / image.shape[1]), (bird, height - TITLE - MARGIN)]
    if conversation:
        boxes.append((CONVERSATION_WIDTH, height - TITLE - MARGIN))
    width = sum(box[0] + GAP for box in boxes) - GAP + 2 * MARGIN
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes: list[Axes] = []
    left = MARGIN
    for wide, tall in boxes:
        place = (left / width, 1 - (TITLE + tall) / height, wide / width, tall / height)
        axes.append(figure.add_axes(place))
        left += wide + GAP
    axes[0].set_axis_off()
    figure.text(MARGIN / width, 1 - 0.29 / height, title, fontsize=style.LARGE, weight="bold", **style.TEXT)
    return figure, axes


def draw_legend(figure: Figure, camera: Axes, plans: Sequence[Plan]) -> None:
    """A line per plan under the camera view."""
    handles = [
        Line2D([], [], color=colour, linewidth=3 if plan.role == Role.TURN else 1.5,
               dashes=style.DASHES[plan.role])
        for plan, colour in zip(plans, style.plan_colours(plans), strict=True)
    ]  # fmt: skip
    if handles:
        place = camera.get_position()
        figure.legend(
            handles, [plan.summary for plan in plans], loc="upper left", bbox_to_anchor=(place.x0 - 0.005, place.y0),
            frameon=False, ncols=legend_columns(plans), fontsize=style.NORMAL, labelcolor=style.TEXT["color"],
            handlelength=2.4,
        )  # fmt: skip


def legend_columns(plans: Sequence[Plan]) -> int:
    """Columns that `draw_legend` lays the plans out in."""
    return 2 if len(plans) > 5 else 1


def legend_height(plans: Sequence[Plan]) -> float:
    """[in] that `draw_legend` takes."""
    return 0.2 * math.ceil(len(plans) / legend_columns(plans))


def bird_view_png(
    scene: Scene, plans: Sequence[Plan], width: int = 360, height: int = 480, metric: str = "pdms_v1"
) -> bytes:
    """The bird's-eye view as a PNG with a reduced palette. metric: whose traffic is drawn."""
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    draw_bird_view(figure.add_axes((0.005, 0.005, 0.99, 0.99)), scene, plans, metric)
    picture = Image.fromarray(pixels(figure))
    buffer = io.BytesIO()
    picture.quantize(96, dither=Image.Dither.NONE).save(buffer, "PNG")
    return buffer.getvalue()


def camera_view_jpeg(
    scene: Scene, image: np.ndarray, plans: Sequence[Plan], width: int = 720, metric: str = "pdms_v1"
) -> bytes:
    """The camera view as a JPEG, of lower quality if a busy picture would take more than 60 kB. metric: whose
    traffic is drawn."""
    return small_jpeg(camera_view(scene, image, plans, width, metric), JPEG_BYTES)


def small_jpeg(image: np.ndarray, most: int) -> bytes:
    """An image (H, W, 3) uint8 RGB as a JPEG of the best quality that takes at most so many bytes, if one does."""
    for quality in JPEG_QUALITIES:
        _, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(data) <= most:
            break
    return data.tobytes()


def figure_jpeg(figure: Figure) -> bytes:
    """A figure as a JPEG of at most FIGURE_BYTES, where some quality allows it: for a notebook that is kept."""
    return small_jpeg(pixels(figure), FIGURE_BYTES)


def pixels(figure: Figure) -> np.ndarray:
    """Draw a figure that has an Agg canvas: (H, W, 3) uint8 RGB, valid until it is drawn again."""
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg), "Figures here are made with FigureCanvasAgg(figure)."
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]
