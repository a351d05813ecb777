"""PDM-Closed's 15 proposals: three parallel paths, each driven by five IDM policies (navsim `PDMGenerator`)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.pdm_closed.forecast import REFRESH, Forecast
from mtdrive.simulation.pdm_closed.idm import SPEED_FRACTIONS, Candidates, Obstacles, drive
from mtdrive.simulation.pdm_closed.path import Path
from mtdrive.simulation.scene import NUM_STEPS, ObjectType

OFFSETS = (0.0, -1.0, 1.0)  # [m] of the paths, positive to the left
_FALLBACK_SPEED = 15.0  # [m/s] where the lane has no limit
_CORRIDOR_TIME = 5.0  # [s] at the highest target speed
_LEAF_SIZE = 10  # of the official search tree: it decides which of two touched obstacles leads


@dataclass(frozen=True)
class Proposals:
    """Path-major: path 0 with speeds 0..4, then paths 1 and 2.

    states: (15, 41, 3) UTM x, y, heading. motion: (15, 41, 2) distance along the path [m] and speed [m/s].
    leaders: (15, 41, 3) IDM leader: distance [m], speed [m/s], rear length [m].
    """

    states: np.ndarray
    motion: np.ndarray
    leaders: np.ndarray


def propose(
    centerline: Path, speed_limit: float | None, ego_pose: np.ndarray, ego_speed: float, forecast: Forecast
) -> Proposals:
    """Unroll all proposals. ego_pose: (3,) UTM rear axle. ego_speed: [m/s], longitudinal."""
    target_speeds = SPEED_FRACTIONS * (_FALLBACK_SPEED if speed_limit is None else speed_limit)
    polygons = {step: forecast.polygons(step) for step in range(REFRESH, NUM_STEPS, REFRESH)}
    trees = {step: shapely.STRtree(polygons[step], _LEAF_SIZE) for step in polygons}
    obstacles = _obstacles(forecast)
    unrolled = []
    for path in (centerline if offset == 0.0 else centerline.offset(offset) for offset in OFFSETS):
        start = path.line.project(shapely.Point(ego_pose[:2]))
        corridor = path.stretch(start, start + abs(target_speeds.max()) * _CORRIDOR_TIME).buffer(
            vehicle.WIDTH / 2, cap_style="square"
        )
        candidates = _candidates(path, {step: _hits(trees[step], corridor, forecast) for step in trees}, polygons)
        unrolled.append(
            drive(path.states, path.progress, path.line.length, start, ego_speed, target_speeds, obstacles, candidates)
        )
    return Proposals(*(np.concatenate(parts) for parts in zip(*unrolled, strict=True)))


def _obstacles(forecast: Forecast) -> Obstacles:
    polygons = forecast.polygons(0)
    num_lights = len(forecast.lights)
    is_agent = forecast.kind <= ObjectType.BICYCLE
    return Obstacles(
        xy=shapely.get_coordinates(shapely.get_exterior_ring(polygons)),
        start=np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(shapely.get_exterior_ring(polygons)))]),
        velocity=np.concatenate([forecast.velocity, np.zeros((num_lights, 2))]),
        heading=np.concatenate([forecast.poses[:, 2], np.zeros(num_lights)]),
        speed=np.concatenate([np.where(is_agent, forecast.speed, 0.0), np.zeros(num_lights)]),
        is_light=np.arange(len(polygons)) >= len(forecast.tokens),
    )


def _hits(tree: shapely.STRtree, corridor: shapely.Polygon, forecast: Forecast) -> np.ndarray:
    rows = tree.query(corridor, predicate="intersects")
    return rows[~forecast.ignored[rows]]


def _candidates(path: Path, hits: dict[int, np.ndarray], polygons: dict[int, np.ndarray]) -> Candidates:
    """Obstacles in the corridor of a path at each refreshed step, and how far along the path they are."""
    counts = np.zeros(NUM_STEPS, dtype=np.int64)
    counts[list(hits)] = [len(rows) for rows in hits.values()]
    inside = np.concatenate([polygons[step][rows] for step, rows in hits.items()])
    return Candidates(
        start=np.concatenate([[0], np.cumsum(counts)]),
        obstacle=np.concatenate(list(hits.values())),
        progress=shapely.line_locate_point(path.line, shapely.centroid(inside)),
    )
