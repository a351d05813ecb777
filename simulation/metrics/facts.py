"""Facts about a violation that several metrics report alike, as fields of a `Finding`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.geometry.frames import box_corners, translate_forward
from mtdrive.simulation.scene import STEP, ObjectType, Scene

if TYPE_CHECKING:
    from mtdrive.simulation.scoring import Scores

EGO_SIZE = np.array([vehicle.LENGTH, vehicle.WIDTH])


def when_and_where(scores: Scores, row: int, time: float) -> dict[str, Any]:
    """A time [s], and where the rear axle is then."""
    return {"time": time, "ego_position": xy(ego_pose(scores, row, time))}


def encounter(scene: Scene, scores: Scores, row: int, time: float, track: int) -> dict[str, Any]:
    """The object that a plan meets at a time [s]: a track of the observation, and the gap to it [m]."""
    observation = scene.observations[scores.metric]
    step = round(time / STEP)
    step += int(np.argmax(observation.present[step:, track]))  # time to collision looks ahead to tracks not yet there
    ego, box = ego_pose(scores, row, time), observation.poses[step, track]
    footprints = [
        box_corners(translate_forward(ego, vehicle.REAR_AXLE_TO_CENTER), EGO_SIZE),
        box_corners(box, observation.size[track]),
    ]
    return {
        **when_and_where(scores, row, time),
        "object_class": ObjectType(observation.kind[track]).name.lower(),
        "object_token": str(observation.tokens[track]),
        "object_position": xy(box),
        "quantity": "gap",
        "measured": float(shapely.distance(*shapely.polygons(np.stack(footprints)))),
    }


def ego_pose(scores: Scores, row: int, time: float) -> np.ndarray:
    """(3,) x [m], y [m], heading [rad] of the rear axle at a time [s]."""
    return scores.events["states"][row, round(time / STEP), :3]


def xy(pose: np.ndarray) -> tuple[float, float]:
    """x, y [m] of a pose (>= 2,)."""
    return float(pose[0]), float(pose[1])
