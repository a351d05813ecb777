"""The camera image with plans laid on the road, as the ground that the car would cover."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from mtdrive.simulation.camera import PinholeCamera
from mtdrive.simulation.scene import Scene
from mtdrive.visualization import style
from mtdrive.visualization.plan import Plan, Role, swept_edges, violation_place

FILL = 0.30  # opacity of a turn's ribbon
_SHIFT = 4  # fractional bits of OpenCV's corners


def camera_view(
    scene: Scene, image: np.ndarray, plans: Sequence[Plan], width: int = 960, metric: str = "pdms_v1"
) -> np.ndarray:
    """The front image (H, W, 3) uint8 RGB resampled to a width, with plans drawn in: (h, width, 3) uint8 RGB.

    Turns are filled ribbons of the car's width with a bar across at every planned second; references are edges
    alone. Later plans cover earlier ones. What lies behind the camera is left out.
    """
    height, full_width = image.shape[:2]
    size = (width, round(height * width / full_width))
    method = cv2.INTER_AREA if width < full_width else cv2.INTER_CUBIC
    canvas = cv2.resize(image, size, interpolation=method)
    camera = PinholeCamera.from_scene(scene.camera, full_width, height).resized(*size)
    thickness = max(1, round(width / 480))
    for plan, colour in zip(plans, style.plan_colours(plans), strict=True):
        draw_plan(canvas, camera, plan, style.rgb(colour), thickness)
    for plan in plans:
        if plan.violation is not None and plan.role == Role.TURN:
            draw_violation(canvas, camera, violation_place(scene, plan, metric)[-1], thickness)
    return canvas


def draw_plan(
    canvas: np.ndarray, camera: PinholeCamera, plan: Plan, colour: tuple[int, int, int], thickness: int
) -> None:
    """Draw one plan into canvas (H, W, 3) uint8 RGB."""
    path = plan.path
    left, right = swept_edges(path)
    if plan.role == Role.TURN:
        tint = canvas.copy()
        for near_left, far_left, far_right, near_right in zip(left[:-1], left[1:], right[1:], right[:-1], strict=True):
            outline = camera.project_polygon(_on_ground([near_left, far_left, far_right, near_right]))
            if len(outline) >= 3:
                cv2.fillPoly(tint, [_fixed(outline)], colour, cv2.LINE_8, _SHIFT)
        cv2.addWeighted(tint, FILL, canvas, 1 - FILL, 0, dst=canvas)
        second = max(1, round((len(path) - 1) / 4))
        for i in range(second, len(path), second):
            _line(canvas, camera, np.array([left[i], right[i]]), colour, thickness)
    for edge in (left, right):
        _line(canvas, camera, edge, colour, thickness)


def draw_violation(canvas: np.ndarray, camera: PinholeCamera, place: np.ndarray, thickness: int) -> None:
    """A cross in a ring at a place (2,) on the ground."""
    (pixel,), (depth,) = camera.project(_on_ground([place]))
    if depth <= 0 or not (np.abs(pixel) < 4 * max(canvas.shape)).all():
        return
    radius = max(5, 5 * thickness)
    centre = _fixed(pixel)
    for colour, extra in (((255, 255, 255), 2 * thickness), (style.rgb(style.VIOLATION), 0)):
        cv2.circle(canvas, centre.tolist(), radius << _SHIFT, colour, thickness + extra, cv2.LINE_AA, _SHIFT)
        for reach in ((radius, radius), (radius, -radius)):
            arm = np.array(reach) * (0.7 * (1 << _SHIFT))
            ends = (np.rint(centre + arm).astype(int).tolist(), np.rint(centre - arm).astype(int).tolist())
            cv2.line(canvas, *ends, colour, thickness + extra, cv2.LINE_AA, _SHIFT)


def _line(canvas: np.ndarray, camera: PinholeCamera, xy: np.ndarray, colour, thickness: int) -> None:
    """A line on the ground with a light rim, which keeps dark colours visible on asphalt."""
    for piece in camera.project_polyline(_on_ground(xy)):
        points = [_fixed(np.clip(piece, -8000, 8000))]
        cv2.polylines(canvas, points, False, (255, 255, 255), thickness + 2, cv2.LINE_AA, _SHIFT)
        cv2.polylines(canvas, points, False, colour, thickness, cv2.LINE_AA, _SHIFT)


def _on_ground(xy) -> np.ndarray:
    xy = np.asarray(xy, dtype=np.float64)
    return np.column_stack([xy, np.zeros(len(xy))])


def _fixed(pixels: np.ndarray) -> np.ndarray:
    """Pixels as OpenCV's fixed-point integers."""
    return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
