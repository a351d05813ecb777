"""PDM-Closed's 15 proposals: three parallel paths, each driven by five IDM policies (navsim `PDMGenerator`)."""

from __future__ import annotations

from collections.abc import Sequence
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
_REFRESHED = range(REFRESH, NUM_STEPS, REFRESH)
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
    paths = [centerline if offset == 0.0 else centerline.offset(offset) for offset in OFFSETS]
    starts = [path.line.project(shapely.Point(ego_pose[:2])) for path in paths]
    reach = abs(target_speeds.max()) * _CORRIDOR_TIME
    corridors = shapely.buffer(
        [path.stretch(start, start + reach) for path, start in zip(paths, starts, strict=True)],
        vehicle.WIDTH / 2,
        cap_style="square",
    )
    polygons = forecast.polygons(_REFRESHED)
    hits = [_hits(seen, corridors, forecast.ignored) for seen in polygons]
    obstacles = _obstacles(forecast)
    unrolled = []
    for number, (path, start) in enumerate(zip(paths, starts, strict=True)):
        candidates = _candidates(path, [obstacle[corridor == number] for corridor, obstacle in hits], polygons)
        unrolled.append(
            drive(path.states, path.progress, path.line.length, start, ego_speed, target_speeds, obstacles, candidates)
        )
    return Proposals(*(np.concatenate(parts) for parts in zip(*unrolled, strict=True)))


def _obstacles(forecast: Forecast) -> Obstacles:
    polygons = forecast.polygons([0])[0]
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


def _hits(polygons: np.ndarray, corridors: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """(2, n) corridors and obstacles that meet at one step, in the order of the official search tree."""
    hits = shapely.STRtree(polygons, _LEAF_SIZE).query(corridors, predicate="intersects")
    return hits[:, ~ignored[hits[1]]]


def _candidates(path: Path, hits: Sequence[np.ndarray], polygons: np.ndarray) -> Candidates:
    """Obstacles in the corridor of a path at each refreshed step, and how far along the path they are."""
    counts = np.zeros(NUM_STEPS, dtype=np.int64)
    counts[list(_REFRESHED)] = [len(obstacles) for obstacles in hits]
    inside = np.concatenate([seen[obstacles] for seen, obstacles in zip(polygons, hits, strict=True)])
    return Candidates(
        start=np.concatenate([[0], np.cumsum(counts)]),
        obstacle=np.concatenate(hits),
        progress=shapely.line_locate_point(path.line, shapely.centroid(inside)),
    )
