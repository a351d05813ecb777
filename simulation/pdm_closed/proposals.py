"""PDM-Closed's 15 proposals: five IDM policies on each of three parallel paths (navsim `PDMGenerator`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.pdm_closed.forecast import REFRESH, Forecast
from mtdrive.simulation.pdm_closed.idm import SPEED_FRACTIONS, Candidates, Obstacles, simulate_idm
from mtdrive.simulation.pdm_closed.path import Path
from mtdrive.simulation.scene import NUM_STEPS, ObjectType

OFFSETS = (0.0, -1.0, 1.0)  # [m] of the paths, positive to the left
_FALLBACK_SPEED = 15.0  # [m/s] where the lane has no limit
_REFRESHED = range(REFRESH, NUM_STEPS, REFRESH)
_CORRIDOR_TIME = 5.0  # [s] at the highest target speed
_LEAF_SIZE = 10  # of the official search tree: it decides which of two touched obstacles leads


@dataclass(frozen=True)
class Proposals:
    """The 15 proposals, path-major: path 0 with target speeds 0 to 4, then paths 1 and 2."""

    states: np.ndarray
    """(15, 41, 3) UTM x [m], y [m], heading [rad] of the rear axle at 10 Hz."""
    motion: np.ndarray
    """(15, 41, 2) distance along the path [m] and speed [m/s]."""
    leaders: np.ndarray
    """(15, 41, 3) the IDM's leader: distance along the path [m], speed [m/s], rear length [m]."""


def propose(
    centerline: Path, speed_limit: float | None, ego_pose: np.ndarray, ego_speed: float, forecast: Forecast
) -> Proposals:
    """Simulate all proposals.

    Args:
        centerline: the path with offset 0, in UTM.
        speed_limit: of the starting lane [m/s], if it has one.
        ego_pose: (3,) UTM x [m], y [m], heading [rad] of the rear axle at t0.
        ego_speed: longitudinal, at t0 [m/s].
        forecast: the traffic.
    """
    target_speeds = SPEED_FRACTIONS * (_FALLBACK_SPEED if speed_limit is None else speed_limit)
    paths = [centerline if offset == 0.0 else centerline.offset(offset) for offset in OFFSETS]
    starts = [path.line.project(shapely.Point(ego_pose[:2])) for path in paths]
    reach = abs(target_speeds.max()) * _CORRIDOR_TIME
    corridors = shapely.buffer(
        [path.section(start, start + reach) for path, start in zip(paths, starts, strict=True)],
        vehicle.WIDTH / 2,
        cap_style="square",
    )
    polygons = forecast.polygons(_REFRESHED)
    hits = [_hits(seen, corridors, forecast.ignored) for seen in polygons]
    obstacles, part_start = _obstacles(forecast)
    simulated = []
    for number, (path, start) in enumerate(zip(paths, starts, strict=True)):
        in_corridor = [obstacle[corridor == number] for corridor, obstacle in hits]
        candidates = _candidates(path, in_corridor, polygons, part_start)
        ego = (start, ego_speed, target_speeds)
        simulated.append(simulate_idm(path.states, path.progress, path.line.length, *ego, obstacles, candidates))
    return Proposals(*(np.concatenate(parts) for parts in zip(*simulated, strict=True)))


def _obstacles(forecast: Forecast) -> tuple[Obstacles, np.ndarray]:
    """Objects, then lights, at t0; (A + K + 1,) where each begins: each part of a multipolygon is an obstacle."""
    polygons = forecast.polygons([0])[0]
    parts, owner = shapely.get_parts(polygons, return_index=True)
    outlines = shapely.get_exterior_ring(parts)
    num_lights = len(forecast.lights)
    is_agent = forecast.kind <= ObjectType.BICYCLE
    obstacles = Obstacles(
        xy=shapely.get_coordinates(outlines),
        start=np.concatenate([[0], np.cumsum(shapely.get_num_coordinates(outlines))]),
        velocity=np.concatenate([forecast.velocity, np.zeros((num_lights, 2))])[owner],
        heading=np.concatenate([forecast.poses[:, 2], np.zeros(num_lights)])[owner],
        speed=np.concatenate([np.where(is_agent, forecast.speed, 0.0), np.zeros(num_lights)])[owner],
        is_light=owner >= len(forecast.tokens),
    )
    return obstacles, np.searchsorted(owner, np.arange(len(polygons) + 1))


def _hits(polygons: np.ndarray, corridors: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """(2, n) indices of corridors and obstacles that meet at one step, in the order of the official search tree."""
    hits = shapely.STRtree(polygons, _LEAF_SIZE).query(corridors, predicate="intersects")
    return hits[:, ~ignored[hits[1]]]


def _candidates(path: Path, hits: Sequence[np.ndarray], polygons: np.ndarray, part_start: np.ndarray) -> Candidates:
    """The obstacles in the corridor of a path at each refreshed step, and their distances along the path.

    The parts of a multipolygon are all candidates, at the distance of their common centre.
    """
    num_parts = np.diff(part_start)
    counts = np.zeros(NUM_STEPS, dtype=np.int64)
    counts[list(_REFRESHED)] = [num_parts[rows].sum() for rows in hits]
    inside = np.concatenate([seen[rows] for seen, rows in zip(polygons, hits, strict=True)])
    rows = np.concatenate(hits)
    repeats = num_parts[rows]
    part = np.arange(repeats.sum()) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    progress = shapely.line_locate_point(path.line, shapely.centroid(inside))
    return Candidates(
        start=np.concatenate([[0], np.cumsum(counts)]),
        obstacle=np.repeat(part_start[rows], repeats) + part,
        progress=np.repeat(progress, repeats),
    )
