"""PDM-Closed's forecast: objects at constant velocity, traffic lights unchanged (navsim `PDMObservation`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.geometry.frames import (
    box_corners,
    normalize_angle,
    poses_to_global,
    poses_to_local,
    rotate,
    translate_forward,
)
from mtdrive.simulation.geometry.polygons import pack, polygons_to_local
from mtdrive.simulation.navsim_format.logs import Detections
from mtdrive.simulation.scene import STEP, ObjectType, Observation

RADIUS = 100.0  # [m] around the ego centre
NUM_STEPS = 51  # 4 s and the second that time-to-collision looks ahead
REFRESH = 2  # steps between forecasts; an odd step uses the forecast of the step before
_MAX_AGENTS = {ObjectType.VEHICLE: 50, ObjectType.PEDESTRIAN: 25, ObjectType.BICYCLE: 10}
_MAX_STATIC = 50


@dataclass(frozen=True)
class Forecast:
    """A objects (static ones first, then by class, the nearest first) and K red lights, in UTM."""

    tokens: list[str]
    """A track tokens."""
    kind: np.ndarray
    """(A,) int8, `ObjectType`."""
    poses: np.ndarray
    """(A, 3) x [m], y [m], heading [rad] of the box centres at t0."""
    size: np.ndarray
    """(A, 2) length and width [m]."""
    velocity: np.ndarray
    """(A, 2) [m/s], along or against the heading."""
    lights: list[str]
    """Map ids of the K lane connectors of the route whose light is red."""
    light_polygons: np.ndarray
    """(K,) shapely polygons of these connectors."""
    ignored: np.ndarray
    """(A + K,) bool, what the ego overlaps at t0; a connector only if it holds the whole ego."""

    @property
    def speed(self) -> np.ndarray:
        """(A,) speeds [m/s]."""
        return np.hypot(self.velocity[:, 0], self.velocity[:, 1])

    def polygons(self, steps: Sequence[int]) -> np.ndarray:
        """(len(steps), A + K) shapely polygons of objects and lights at some steps."""
        seconds = np.asarray(steps)[:, None, None, None] * STEP
        boxes = shapely.polygons(box_corners(self.poses, self.size) + seconds * self.velocity[:, None])
        return np.hstack([boxes, np.tile(self.light_polygons, (len(steps), 1))])

    def observation(self, origin: np.ndarray) -> Observation:
        """The forecast in the frame whose UTM pose is origin (3,), for scoring."""
        seen = np.arange(NUM_STEPS) // REFRESH * REFRESH * STEP
        poses = np.repeat(self.poses[None], NUM_STEPS, axis=0)
        poses[..., :2] += seen[:, None, None] * self.velocity
        num_objects = len(self.tokens)
        return Observation(
            tokens=np.array(self.tokens, dtype=np.str_),
            kind=self.kind,
            size=self.size,
            first_heading=normalize_angle(self.poses[:, 2] - origin[2]),
            first_speed=self.speed,
            poses=poses_to_local(poses, origin),
            present=np.ones((NUM_STEPS, num_objects), dtype=bool),
            light_ids=np.array(self.lights, dtype=np.str_),
            light_polygons=polygons_to_local(pack(self.light_polygons), origin),
            light_red=np.ones((NUM_STEPS, len(self.lights)), dtype=bool),
            ignored=self.ignored[:num_objects],
        )


def forecast(
    detections: Detections, ego_pose: np.ndarray, red_lights: Sequence[str], route_polygons: dict[str, shapely.Polygon]
) -> Forecast:
    """Forecast from the detections at t0.

    Args:
        detections: what is seen at t0, in the ego frame.
        ego_pose: (3,) UTM x [m], y [m], heading [rad] of the rear axle.
        red_lights: ids of the lane connectors whose light is red.
        route_polygons: polygons of the lanes of the corrected route, by id; red lights elsewhere do not count.
    """
    center = translate_forward(ego_pose, vehicle.REAR_AXLE_TO_CENTER)
    poses = poses_to_global(detections.boxes[:, :3], ego_pose)
    distance = np.hypot(*(poses[:, :2] - center[:2]).T)
    rows = _nearest(detections.kind, distance)
    poses, size, kind = poses[rows], detections.boxes[rows, 3:], detections.kind[rows]
    velocity = _along_heading(rotate(detections.velocity[rows], ego_pose[2]), poses[:, 2])

    lights = [id_ for id_ in red_lights if id_ in route_polygons]
    light_polygons = np.array([route_polygons[id_] for id_ in lights], dtype=object)
    footprint = shapely.Polygon(box_corners(center, np.array([vehicle.LENGTH, vehicle.WIDTH])))
    overlapped = shapely.intersects(shapely.polygons(box_corners(poses, size)), footprint)
    inside = shapely.within(footprint, light_polygons)
    return Forecast(
        tokens=[detections.tokens[row] for row in rows],
        kind=kind,
        poses=poses,
        size=size,
        velocity=velocity,
        lights=lights,
        light_polygons=light_polygons,
        ignored=np.concatenate([overlapped, inside]).astype(bool),
    )


def _nearest(kind: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Rows of the nearest objects of each class, static ones together and first."""
    agents = [(kind == agent, limit) for agent, limit in _MAX_AGENTS.items()]
    static = (kind > ObjectType.BICYCLE) & (kind != ObjectType.EGO)
    rows = []
    for mask, limit in [(static, _MAX_STATIC), *agents]:
        candidates = np.flatnonzero(mask & (distance <= RADIUS))
        rows.append(candidates[np.argsort(distance[candidates])][:limit])
    return np.concatenate(rows)


def _along_heading(velocity: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Velocities (A, 2) of the same speed along the heading (A,) or, where that is closer, against it."""
    forward = np.abs(normalize_angle(heading - np.arctan2(velocity[:, 1], velocity[:, 0]))) < np.pi / 2
    course = np.where(forward, heading, normalize_angle(heading + np.pi))
    return np.hypot(velocity[:, 0], velocity[:, 1])[:, None] * np.column_stack([np.cos(course), np.sin(course)])
