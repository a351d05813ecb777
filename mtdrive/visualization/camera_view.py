"""The camera image with plans laid on the road, as the ground that the car would cover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from mtdrive.simulation.camera import PinholeCamera
from mtdrive.simulation.scene import STEP, Scene
from mtdrive.visualization import style
from mtdrive.visualization.plan import Plan, Role, ego_corners, pose_at, swept_edges, violation_place

FILL = 0.30  # opacity of a turn's ribbon
_SHIFT = 4  # fractional bits of OpenCV's corners


@dataclass(frozen=True)
class Ribbon:
    """The visible parts of a plan on the ground, in pixels."""

    quads: list[np.ndarray]
    """(M, 2) outlines of the pieces of ground that the car covers."""
    edges: list[np.ndarray]
    """(M, 2) pieces of the two edges of that ground."""
    bars: list[np.ndarray]
    """(M, 2) pieces of the bars across it at every planned second."""


def camera_view(
    scene: Scene,
    image: np.ndarray,
    plans: Sequence[Plan],
    width: int = 960,
    metric: str = "pdms_v1",
    violations: bool = True,
) -> np.ndarray:
    """The front image (H, W, 3) uint8 RGB resampled to a width, with plans drawn in: (h, width, 3) uint8 RGB.

    Turns are filled ribbons of the car's width with a bar across at every planned second; references are edges
    alone. Later plans cover earlier ones. What lies behind the camera is left out.
    """
    canvas = resampled(image, width)
    camera = image_camera(scene, image.shape, width)
    thickness = _thickness(width)
    for plan, colour in zip(plans, style.plan_colours(plans), strict=True):
        draw_plan(canvas, camera, plan, style.rgb(colour), thickness)
    for plan in plans if violations else ():
        if plan.violation is not None and plan.role == Role.TURN:
            draw_violation(canvas, camera, violation_place(scene, plan, plan.violation, metric)[-1], thickness)
    return canvas


def camera_moment(
    scene: Scene, view: np.ndarray, plans: Sequence[Plan], step: int, metric: str, shape: tuple[int, ...]
) -> np.ndarray:
    """A copy of a camera view of an image of some shape, with the ground under the ego on each turn's plan `step`
    tenths of a second after t0, and the violations that have happened."""
    canvas = view.copy()
    camera, thickness = image_camera(scene, shape, view.shape[1]), _thickness(view.shape[1])
    for plan, colour in zip(plans, style.plan_colours(plans), strict=True):
        if plan.role != Role.TURN:
            continue
        outline = footprint(camera, pose_at(plan, step))
        if len(outline) >= 3:
            cv2.fillPoly(canvas, [_fixed(outline)], style.rgb(colour), cv2.LINE_AA, _SHIFT)
            cv2.polylines(canvas, [_fixed(outline)], True, (255, 255, 255), thickness, cv2.LINE_AA, _SHIFT)
        if plan.violation is not None and plan.violation.time <= step * STEP:
            draw_violation(canvas, camera, violation_place(scene, plan, plan.violation, metric)[-1], thickness)
    return canvas


def resampled(image: np.ndarray, width: int) -> np.ndarray:
    """An image (H, W, 3) at a width."""
    height, full_width = image.shape[:2]
    method = cv2.INTER_AREA if width < full_width else cv2.INTER_CUBIC
    return cv2.resize(image, (width, round(height * width / full_width)), interpolation=method)


def image_camera(scene: Scene, shape: tuple[int, ...], width: int) -> PinholeCamera:
    """The camera of the scene's image of a shape (H, W, ...), resampled to a width."""
    height, full_width = shape[:2]
    return PinholeCamera.from_scene(scene.camera, full_width, height).resized(width, round(height * width / full_width))


def ribbon(camera: PinholeCamera, plan: Plan) -> Ribbon:
    """The pixels of a plan on the ground."""
    path = plan.path
    left, right = swept_edges(path)
    quads = [
        camera.project_polygon(_on_ground(corners))
        for corners in zip(left[:-1], left[1:], right[1:], right[:-1], strict=True)
    ]
    second = max(1, round((len(path) - 1) / 4))
    bars = [np.array([left[i], right[i]]) for i in range(second, len(path), second)]
    return Ribbon(
        [quad for quad in quads if len(quad) >= 3],
        [piece for edge in (left, right) for piece in camera.project_polyline(_on_ground(edge))],
        [piece for bar in bars for piece in camera.project_polyline(_on_ground(bar))],
    )


def footprint(camera: PinholeCamera, pose: np.ndarray) -> np.ndarray:
    """(M, 2) the visible pixels' outline of the ground under the ego at a rear-axle pose (3,); M = 0 if none is."""
    return camera.project_polygon(_on_ground(ego_corners(pose)))


def draw_plan(
    canvas: np.ndarray, camera: PinholeCamera, plan: Plan, colour: tuple[int, int, int], thickness: int
) -> None:
    """Draw one plan into canvas (H, W, 3) uint8 RGB."""
    shape = ribbon(camera, plan)
    if plan.role == Role.TURN:
        tint = canvas.copy()
        for quad in shape.quads:
            cv2.fillPoly(tint, [_fixed(quad)], colour, cv2.LINE_8, _SHIFT)
        cv2.addWeighted(tint, FILL, canvas, 1 - FILL, 0, dst=canvas)
        for bar in shape.bars:
            _line(canvas, bar, colour, thickness)
    for edge in shape.edges:
        _line(canvas, edge, colour, thickness)


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


def _line(canvas: np.ndarray, pixels: np.ndarray, colour, thickness: int) -> None:
    """A line with a light rim, which keeps dark colours visible on asphalt."""
    points = [_fixed(np.clip(pixels, -8000, 8000))]
    cv2.polylines(canvas, points, False, (255, 255, 255), thickness + 2, cv2.LINE_AA, _SHIFT)
    cv2.polylines(canvas, points, False, colour, thickness, cv2.LINE_AA, _SHIFT)


def _thickness(width: int) -> int:
    """Of a line, for an image of that width [px]."""
    return max(1, round(width / 480))


def _on_ground(xy) -> np.ndarray:
    xy = np.asarray(xy, dtype=np.float64)
    return np.column_stack([xy, np.zeros(len(xy))])


def _fixed(pixels: np.ndarray) -> np.ndarray:
    """Pixels as OpenCV's fixed-point integers."""
    return np.rint(pixels * (1 << _SHIFT)).astype(np.int32)
