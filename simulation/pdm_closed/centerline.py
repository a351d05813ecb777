"""The centerline that the ego should follow: its starting lane, then the shortest lane sequence along the route."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import box_corners, normalize_angle, translate_forward
from mtdrive.simulation.navsim_format.road_map import Lane, RoadMap
from mtdrive.simulation.pdm_closed.path import Path

_SEARCH_DEPTH = 30  # roadblocks


def starting_lane(
    road_map: RoadMap, under_ego: Sequence[str], route_lane_ids: Sequence[str], ego_pose: np.ndarray
) -> Lane:
    """The lane of the route that the ego is on.

    Of the lanes under the rear axle that are on the route it is the one with the smallest heading error. Where none is
    on the route, it is the first route lane that holds the centre of the ego, else the one nearest to the footprint.

    Args:
        road_map: the map.
        under_ego: ids of the map polygons that hold the rear axle, in search-tree order.
        route_lane_ids: ids of the lanes and connectors of the route, in its order.
        ego_pose: (3,) UTM x [m], y [m], heading [rad] of the rear axle.

    Raises:
        MTDriveError: the route has no lane, or one of its lanes has no polygon where it decides.
    """
    if not route_lane_ids:
        raise MTDriveError(f"The route has no lane in map {road_map.location}: log and map do not match.")
    on_route = set(route_lane_ids)
    lanes = [road_map.lanes[id_] for id_ in under_ego if id_ in on_route]
    if lanes:
        return lanes[int(np.argmin([_heading_error(lane, ego_pose) for lane in lanes]))]
    lanes = [road_map.lanes[id_] for id_ in route_lane_ids]
    center = translate_forward(ego_pose, vehicle.REAR_AXLE_TO_CENTER)
    footprint = shapely.Polygon(box_corners(center, np.array([vehicle.LENGTH, vehicle.WIDTH])))
    polygons = np.array([lane.polygon for lane in lanes], dtype=object)
    holding = np.flatnonzero(shapely.contains_xy(polygons, *center[:2]))
    for lane in lanes[: holding[0] if len(holding) else None]:
        if lane.polygon is None or lane.polygon.is_empty:  # the official search fails there too
            raise MTDriveError(f"Lane {lane.id} of map {road_map.location} has no polygon, or several.")
    return lanes[int(holding[0] if len(holding) else np.argmin(shapely.distance(polygons, footprint)))]


def centerline(road_map: RoadMap, route: Sequence[str], route_lane_ids: Sequence[str], start: Lane) -> Path:
    """The joined baselines of the shortest lane sequence from start to the end of the route (at most 30 roadblocks)."""
    first = route.index(start.roadblock) if start.roadblock in route else 0
    target = route[first : first + _SEARCH_DEPTH][-1]
    lanes = _shortest_lanes(road_map, start, target, set(route_lane_ids))
    return Path.through(np.concatenate([lane.baseline for lane in lanes]))


def _heading_error(lane: Lane, ego_pose: np.ndarray) -> float:
    """Heading of the ego off the nearest point of the baseline [rad], not negative."""
    distance = ((lane.baseline[:, :2] - ego_pose[:2]) ** 2).sum(axis=-1) ** 0.5
    return float(abs(normalize_angle(lane.baseline[np.argmin(distance), 2] - ego_pose[2])))


def _shortest_lanes(road_map: RoadMap, start: Lane, target: str, allowed: set[str]) -> list[Lane]:
    """Dijkstra over lanes of the route; where the target roadblock cannot be reached, the shortest deepest branch.

    Of equal costs the lane that was reached first is expanded first.
    """
    parent: dict[str, str | None] = {start.id: None}
    frontier = {start.id: (1.0, 1)}  # lane -> cost [m] and depth, in the order of reaching
    expanded: dict[str, tuple[float, int]] = {}
    end = None
    while frontier:
        current = min(frontier, key=lambda id_: frontier[id_][0])
        cost, depth = expanded[current] = frontier.pop(current)
        if road_map.lanes[current].roadblock == target:
            end = current
            break
        for successor in road_map.lanes[current].successors:
            if successor not in allowed or successor in expanded:
                continue
            new_cost = cost + road_map.lanes[successor].center_line.length
            if successor not in frontier or new_cost < frontier[successor][0]:
                frontier[successor] = (new_cost, depth + 1)
                parent[successor] = current
    if end is None:
        deepest = max(depth for _, depth in expanded.values())
        end = min((id_ for id_, (_, depth) in expanded.items() if depth == deepest), key=lambda id_: expanded[id_][0])
    lanes = []
    while end is not None:
        lanes.append(road_map.lanes[end])
        end = parent[end]
    return lanes[::-1]
