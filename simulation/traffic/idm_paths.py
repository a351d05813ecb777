"""Which vehicles become reactive, and the paths that they follow (navsim `navsim_idm_agents_builder.py`).

A vehicle seen at t0 is put on the lane that holds its centre or, if it is in an intersection but in no lane, on the
connector that does; of several, on the one with the smallest heading error, which is not wrapped: an error near a full
turn counts as large. It is moved to the nearest point of the lane's baseline. Vehicles do not become reactive if they
are in no lane, farther than 3 m from the baseline, or if the moved box meets the ego or the moved box of an earlier
vehicle, in the order of the detections.

- The path ends with the lane: navsim's metric cache carries no traffic lights, and without them its agents neither
  continue onto another lane nor stop at a light. At the end of the path they stand.
- The path lacks the last point of the baseline (nuPlan's `create_path_from_se2` loses it), while the progress at t0
  is measured on the whole line.
- The desired speed is the lane's limit; without one it is that of the reactive vehicle before, at first 10 m/s.
- A vehicle that does not become reactive stays where it is if it is outside lanes and intersections, or is
  farther than 3 m from its baseline, moving or not. All others are there at t0 alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.geometry.frames import box_corners, poses_to_global, translate_forward
from mtdrive.simulation.navsim_format.logs import Detections
from mtdrive.simulation.navsim_format.road_map import Lane, RoadMap
from mtdrive.simulation.scene import IdmPaths, ObjectType

MAX_DEVIATION = 3.0  # [m] of a reactive vehicle from its baseline
STATIONARY_SPEED = 0.1  # [m/s]
FALLBACK_SPEED = 10.0  # [m/s] desired, before any lane has a limit
HEADING_STEP = 0.5  # [m] along the baseline, between the points that give its heading
SAME_POINT = 1e-8  # [m] points closer than this are the same


@dataclass(frozen=True)
class _Place:
    """The lane that a vehicle is on."""

    lane: Lane
    """The lane or lane connector."""
    pose: np.ndarray
    """(3,) UTM x [m], y [m], heading [rad] of the nearest point of its baseline."""
    deviation: float
    """Distance of the vehicle from that point [m]."""


def build_idm_paths(road_map: RoadMap, detections: Detections, ego_pose: np.ndarray) -> IdmPaths:
    """The reactive vehicles among the detections at t0, and their paths.

    Args:
        road_map: the map.
        detections: what is seen at t0, in the ego frame.
        ego_pose: (3,) UTM x [m], y [m], heading [rad] of the rear axle.

    Raises:
        MTDriveError: a lane has no baseline path.
    """
    poses = poses_to_global(detections.boxes[:, :3], ego_pose)
    size = detections.boxes[:, 3:]
    speeds = np.hypot(*detections.velocity.T)
    center = translate_forward(ego_pose, vehicle.REAR_AXLE_TO_CENTER)
    occupied = [_box(center, np.array([vehicle.LENGTH, vehicle.WIDTH]))]
    rows, parked, placed = [], [], []
    paths: dict[str, np.ndarray] = {}
    target_speed, target_speeds = FALLBACK_SPEED, []
    for row in np.flatnonzero(detections.kind == ObjectType.VEHICLE):
        on_road, place = _find_place(road_map, poses[row])
        if place is not None and place.deviation > MAX_DEVIATION:
            parked.append(row)
            continue
        if not on_road and speeds[row] < STATIONARY_SPEED:
            parked.append(row)
        if place is None:
            continue
        box = _box(place.pose, size[row])
        if shapely.intersects(occupied, box).any():
            continue
        occupied.append(box)
        rows.append(row)
        placed.append(place)
        paths.setdefault(place.lane.id, _path(place.lane))
        target_speed = place.lane.speed_limit or target_speed
        target_speeds.append(target_speed)

    track = np.array(rows, dtype=np.int64)
    order = list(paths)
    points, lines = shapely.points(poses[track, :2]), [place.lane.center_line for place in placed]
    return IdmPaths(
        track=track,
        pose=np.array([place.pose for place in placed]).reshape(-1, 3),
        progress=shapely.line_locate_point(np.array(lines, dtype=object), points),
        speed=speeds[track],
        target_speed=np.array(target_speeds, dtype=np.float64),
        lane=np.array([order.index(place.lane.id) for place in placed], dtype=np.int64),
        path=np.concatenate([np.empty((0, 4)), *paths.values()]),
        path_start=np.cumsum([0, *map(len, paths.values())]),
        parked=np.array(parked, dtype=np.int64),
    )


def _find_place(road_map: RoadMap, pose: np.ndarray) -> tuple[bool, _Place | None]:
    """Whether a vehicle at a UTM pose (3,) is in a lane or an intersection, and its place if it is on a lane."""
    point = shapely.Point(pose[:2])
    areas = (road_map.lane_area, road_map.lane_connector_area)
    in_lane, in_intersection = (bool(area.holding(point)) for area in (areas[0], road_map.intersection_area))
    if not (in_lane or in_intersection):
        return False, None
    area = areas[0] if in_lane else areas[1]
    lanes = [road_map.lane(area.ids[row]) for row in area.holding(point)]
    if not lanes:
        return True, None
    nearest = [_nearest_pose(lane, point) for lane in lanes]
    best = int(np.argmin([abs(candidate[2] - pose[2]) for candidate in nearest]))
    deviation = float(np.hypot(*(nearest[best][:2] - pose[:2])))
    return True, _Place(lanes[best], nearest[best], deviation)


def _nearest_pose(lane: Lane, point: shapely.Point) -> np.ndarray:
    """(3,) the nearest point of the baseline and the heading to the point half a metre on."""
    line = lane.center_line
    distance = line.project(point)
    here = shapely.get_coordinates(line.interpolate(distance))[0]
    there = shapely.get_coordinates(line.interpolate(distance + HEADING_STEP))[0]
    if (here == there).all():
        step = here - shapely.get_coordinates(line.interpolate(distance - HEADING_STEP))[0]
    else:
        step = there - here
    return np.array([*here, np.arctan2(step[1], step[0])])


def _path(lane: Lane) -> np.ndarray:
    """(n, 4) distance along the baseline, x, y, unwrapped heading."""
    states = lane.baseline
    steps = np.linalg.norm(np.diff(states[:, :2], axis=0), axis=1)
    distance = np.cumsum(np.append(0.0, steps))
    kept = np.append(steps > SAME_POINT, False)
    if kept.sum() < 2:  # the official code fails
        kept[:] = True
    states, distance = states[kept], distance[kept]
    return np.column_stack([distance, states[:, :2], np.unwrap(states[:, 2])])


def _box(pose: np.ndarray, size: np.ndarray) -> shapely.Polygon:
    """The box of size (2,), length and width [m], centred at a pose (3,)."""
    return shapely.Polygon(box_corners(pose, size))
