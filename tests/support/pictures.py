"""A camera, images, and scenes and plans to draw into them."""

from dataclasses import replace

import numpy as np

from mtdrive.simulation.camera import PinholeCamera
from mtdrive.simulation.scene import Camera
from mtdrive.visualization import Plan, style
from support.scenes import straight_scene

INTRINSIC = np.array([[515.0, 0.0, 319.5], [0.0, 515.0, 186.0], [0.0, 0.0, 1.0]])
TO_EGO = np.array([[0.0, 0.0, 1.0, 1.6], [-1.0, 0.0, 0.0, 0.0], [0.0, -1.0, 0.0, 1.5], [0.0, 0.0, 0.0, 1.0]])
CAMERA = PinholeCamera(INTRINSIC, TO_EGO, np.zeros(5), 640, 360)
GREY = np.full((360, 640, 3), 90, np.uint8)


def image(seed: int, size: tuple[int, int] = (90, 160)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)


def scene_with(*objects, **options):
    scene = straight_scene(list(objects), **options)
    return replace(scene, camera=Camera("log/CAM_F0/a.jpg", INTRINSIC, TO_EGO, np.zeros(5)))


def arc(curvature=0.0, speed=8.0, label="turn 1", **fields):
    """A plan along a circle; curvature > 0 turns left."""
    travelled = speed * 0.1 * np.arange(1, 41)
    heading = curvature * travelled
    if curvature:
        xy = np.column_stack([np.sin(heading), 1 - np.cos(heading)]) / curvature
    else:
        xy = np.column_stack([travelled, 0 * travelled])
    return Plan(label, np.column_stack([xy, heading]), **fields)


def near(image, colour, tolerance=40):
    """Where an image has about a colour."""
    return np.abs(image.astype(int) - np.array(style.rgb(colour))).max(axis=-1) < tolerance
