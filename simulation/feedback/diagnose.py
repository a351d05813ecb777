"""From scored plans to findings: what each sub-metric objects to, where and when.

The facts come from `Scores.events` and the scene's arrays; `feedback.repair` adds what must change.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.feedback.structured import Finding
from mtdrive.simulation.geometry.frames import box_corners, translate_forward
from mtdrive.simulation.geometry.polygons import unpack
from mtdrive.simulation.metrics.comfort import LOWER, QUANTITIES, UPPER
from mtdrive.simulation.metrics.driving_direction import COMPLIANT
from mtdrive.simulation.metrics.motion import CORNERS
from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.scene import STEP, MapLayer, ObjectType, Scene
from mtdrive.simulation.scoring import Scores

ENOUGH_PROGRESS = 0.95  # of PDM-Closed's; from there on a plan counts as clean
DRIVABLE = (MapLayer.ROADBLOCK, MapLayer.INTERSECTION, MapLayer.CARPARK_AREA, MapLayer.DRIVABLE_AREA)
EGO_SIZE = np.array([vehicle.LENGTH, vehicle.WIDTH])


def diagnose(scene: Scene, scores: Scores, row: int) -> list[Finding]:
    """Findings on the valid plan in one row of scores, most important first, what the score ignores last.

    scores: of plans in `scene`, whose observation is the traffic that the feedback may know.
    """
    ignored = {metric.column for metric in score_version(scores.metric).metrics if metric.weight == 0.0}
    findings = []
    for metric in sorted((name for name in FACTS if name in scores.columns), key=ignored.__contains__):
        value = float(scores.columns[metric][row])
        facts = {"passed": True} if value == 1.0 else {"passed": False, **FACTS[metric](scene, scores, row)}
        findings.append(Finding(metric=metric, value=value, **facts))
    return findings


def violated(scores: Scores) -> dict[str, np.ndarray]:
    """Which of N valid plans a finding of `diagnose` would object to: sub-metric -> (N,) bool."""
    return {
        name: ~_enough_progress(scores) & (values < 1.0) if FACTS[name] is _progress else values < 1.0
        for name, values in scores.columns.items()
    }


def _collision(scene: Scene, scores: Scores, row: int) -> dict:
    events = scores.events
    return _conflict(scene, scores, row, float(events.collision_time[row]), int(events.collision_track[row]))


def _time_to_collision(scene: Scene, scores: Scores, row: int) -> dict:
    return _conflict(scene, scores, row, float(scores.events.ttc_time[row]), int(scores.events.ttc_track[row]))


def _conflict(scene: Scene, scores: Scores, row: int, time: float, track: int) -> dict:
    observation = scene.observations[scores.metric]
    step = round(time / STEP)
    step += int(np.argmax(observation.present[step:, track]))  # a time to collision looks ahead to who comes later
    ego, box = _ego(scores, row, time), observation.poses[step, track]
    footprints = [
        box_corners(translate_forward(ego, vehicle.REAR_AXLE_TO_CENTER), EGO_SIZE),
        box_corners(box, observation.size[track]),
    ]
    return {
        "time": time,
        "object_class": ObjectType(observation.kind[track]).name.lower(),
        "object_token": str(observation.tokens[track]),
        "object_position": _xy(box),
        "ego_position": _xy(ego),
        "quantity": "gap",
        "measured": float(shapely.distance(*shapely.polygons(np.stack(footprints)))),
    }


def _off_road(scene: Scene, scores: Scores, row: int) -> dict:
    time = float(scores.events.off_road_time[row])
    driven = scores.events.states[row, round(time / STEP) :, :3]
    corners = box_corners(translate_forward(driven, vehicle.REAR_AXLE_TO_CENTER), EGO_SIZE)
    drivable = unpack(scene.drivable_map.polygons)[np.isin(scene.drivable_map.layer, DRIVABLE)]
    depth = 0.0
    if len(drivable):
        points = shapely.points(corners.reshape(-1, 2))
        depth = shapely.STRtree(drivable).query_nearest(points, return_distance=True, all_matches=False)[1].max()
    return {
        "time": time,
        "ego_position": _xy(driven[0]),
        "quantity": "farthest corner off the road",
        "measured": float(depth),
        "limit": 0.0,
        "side": CORNERS[scores.events.off_road_corner[row]].split()[1],
    }


def _wrong_way(scene: Scene, scores: Scores, row: int) -> dict:
    time = float(scores.events.wrong_way_time[row])
    return {
        "time": time,
        "ego_position": _xy(_ego(scores, row, time)),
        "quantity": "way off the route's lanes within a second",
        "measured": float(scores.events.wrong_way_distance[row]),
        "limit": COMPLIANT,
    }


def _red_light(scene: Scene, scores: Scores, row: int) -> dict:
    time = float(scores.events.red_light_time[row])
    return {"time": time, "ego_position": _xy(_ego(scores, row, time))}


def _lane_keeping(scene: Scene, scores: Scores, row: int) -> dict:
    time = float(scores.events.lane_keeping_time[row])
    return {"time": time, "ego_position": _xy(_ego(scores, row, time))}


def _comfort(scene: Scene, scores: Scores, row: int) -> dict:
    peaks = scores.events.comfort_peak[row]
    bounds = np.where(peaks > 0.0, UPPER, LOWER)
    worst = int(np.argmax(np.where(scores.events.comfort_ok[row], -np.inf, peaks / bounds)))
    return {"quantity": QUANTITIES[worst], "measured": float(peaks[worst]), "limit": float(bounds[worst])}


def _progress(scene: Scene, scores: Scores, row: int) -> dict:
    """Progress fails where the way itself falls short, not where a collision sets the sub-metric to 0."""
    way, reference = float(scores.events.progress[row]), float(scores.events.reference_progress[row])
    enough = bool(_enough_progress(scores)[row])
    return {"passed": enough, "quantity": "progress", "measured": way, "limit": reference}


def _enough_progress(scores: Scores) -> np.ndarray:
    way = scores.events.progress / np.maximum(scores.events.reference_progress, STEP)
    return np.maximum(scores.columns["ego_progress"], way) >= ENOUGH_PROGRESS


# Most important first.
FACTS: dict[str, Callable[[Scene, Scores, int], dict]] = {
    "no_at_fault_collisions": _collision,
    "drivable_area_compliance": _off_road,
    "traffic_light_compliance": _red_light,
    "time_to_collision_within_bound": _time_to_collision,
    "driving_direction_compliance": _wrong_way,
    "comfort": _comfort,
    "history_comfort": _comfort,
    "lane_keeping": _lane_keeping,
    "ego_progress": _progress,
}


def _ego(scores: Scores, row: int, time: float) -> np.ndarray:
    """The rear axle (3,) at a time [s]."""
    return scores.events.states[row, round(time / STEP), :3]


def _xy(pose: np.ndarray) -> tuple[float, float]:
    return float(pose[0]), float(pose[1])
