"""From scored plans to findings: what each sub-metric objects to, where and when.

The facts come from `Scores.events` and the scene's arrays; `feedback.repair` adds what must change.
"""

from __future__ import annotations

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.feedback.structured import Finding
from mtdrive.simulation.geometry.frames import box_corners, translate_forward
from mtdrive.simulation.geometry.polygons import unpack
from mtdrive.simulation.metrics.comfort import LOWER, QUANTITIES, UPPER
from mtdrive.simulation.metrics.driving_direction import COMPLIANT
from mtdrive.simulation.metrics.motion import CORNERS
from mtdrive.simulation.scene import STEP, MapLayer, ObjectType, Observation, Scene
from mtdrive.simulation.scoring import Scores

ENOUGH_PROGRESS = 0.95  # of PDM-Closed's; from there on a plan counts as clean
DRIVABLE = (MapLayer.ROADBLOCK, MapLayer.INTERSECTION, MapLayer.CARPARK_AREA, MapLayer.DRIVABLE_AREA)
EGO_SIZE = np.array([vehicle.LENGTH, vehicle.WIDTH])


def diagnose(scene: Scene, scores: Scores, row: int) -> list[Finding]:
    """Findings on the valid plan in one row of scores, most important first.

    scores: of the plans in `scene`, whose observation is the one that the feedback may know.
    """
    observation = scene.observations[scores.metric]
    return [
        _conflict(scores, row, observation, "no_at_fault_collisions"),
        _off_road(scene, scores, row),
        _conflict(scores, row, observation, "time_to_collision_within_bound"),
        _wrong_way(scores, row),
        _comfort(scores, row),
        _progress(scores, row),
    ]


def _conflict(scores: Scores, row: int, observation: Observation, metric: str) -> Finding:
    """A collision, or a time to collision under the bound."""
    value = float(scores.columns[metric][row])
    if value == 1.0:
        return Finding(metric, True, value)
    events = scores.events
    if metric == "no_at_fault_collisions":
        time, track = events.collision_time[row], events.collision_track[row]
    else:
        time, track = events.ttc_time[row], events.ttc_track[row]
    step = round(time / STEP)
    ego = events.states[row, step, :3]
    box = observation.poses[step, track]
    ego_corners = box_corners(translate_forward(ego, vehicle.REAR_AXLE_TO_CENTER), EGO_SIZE)
    gap = shapely.distance(shapely.polygons(ego_corners), shapely.polygons(box_corners(box, observation.size[track])))
    return Finding(
        metric,
        False,
        value,
        time=float(time),
        object_class=ObjectType(observation.kind[track]).name.lower(),
        object_position=_xy(box),
        ego_position=_xy(ego),
        quantity="gap",
        measured=float(gap),
    )


def _off_road(scene: Scene, scores: Scores, row: int) -> Finding:
    metric = "drivable_area_compliance"
    value = float(scores.columns[metric][row])
    if value == 1.0:
        return Finding(metric, True, value)
    time = float(scores.events.off_road_time[row])
    step = round(time / STEP)
    states = scores.events.states[row, :, :3]
    corners = box_corners(translate_forward(states[step:], vehicle.REAR_AXLE_TO_CENTER), EGO_SIZE)
    drivable = unpack(scene.drivable_map.polygons)[np.isin(scene.drivable_map.layer, DRIVABLE)]
    depth = 0.0
    if len(drivable):
        points = shapely.points(corners.reshape(-1, 2))
        _, outside = shapely.STRtree(drivable).query_nearest(points, return_distance=True, all_matches=False)
        depth = float(outside.max())
    return Finding(
        metric,
        False,
        value,
        time=time,
        ego_position=_xy(states[step]),
        quantity="farthest corner off the road",
        measured=depth,
        limit=0.0,
        side="left" if "left" in CORNERS[scores.events.off_road_corner[row]] else "right",
    )


def _wrong_way(scores: Scores, row: int) -> Finding:
    metric = "driving_direction_compliance"
    value = float(scores.columns[metric][row])
    if value == 1.0:
        return Finding(metric, True, value)
    time = float(scores.events.wrong_way_time[row])
    return Finding(
        metric,
        False,
        value,
        time=time,
        ego_position=_xy(scores.events.states[row, round(time / STEP)]),
        quantity="way off the route's lanes within a second",
        measured=float(scores.events.wrong_way_distance[row]),
        limit=COMPLIANT,
    )


def _comfort(scores: Scores, row: int) -> Finding:
    metric = "comfort"
    value = float(scores.columns[metric][row])
    if value == 1.0:
        return Finding(metric, True, value)
    peaks = scores.events.comfort_peak[row]
    bounds = np.where(peaks > 0.0, UPPER, LOWER)
    worst = int(np.argmax(np.where(scores.events.comfort_ok[row], -np.inf, peaks / bounds)))
    return Finding(
        metric,
        False,
        value,
        quantity=QUANTITIES[worst],
        measured=float(peaks[worst]),
        limit=float(bounds[worst]),
    )


def _progress(scores: Scores, row: int) -> Finding:
    """Progress fails where the distance itself falls short, not where a collision sets the sub-metric to 0."""
    metric = "ego_progress"
    value = float(scores.columns[metric][row])
    covered, reference = float(scores.events.progress[row]), float(scores.events.reference_progress[row])
    return Finding(
        metric,
        value >= ENOUGH_PROGRESS or covered >= ENOUGH_PROGRESS * reference,
        value,
        quantity="progress",
        measured=covered,
        limit=reference,
    )


def _xy(pose: np.ndarray) -> tuple[float, float]:
    return float(pose[0]), float(pose[1])
