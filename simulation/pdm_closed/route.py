"""The route of a scene: the roadblocks and lanes that the ego should follow (navsim `route_utils.py`).

The roadblock ids of a log may miss the ego's own roadblock, have gaps or loop back; the correction repairs that.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import pairwise

import numpy as np
import shapely

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import normalize_angle
from mtdrive.simulation.navsim_format.road_map import RoadMap

_SEARCH_RADIUS = 1.0  # [m] half side of the square around the rear axle
_MAX_HEADING_ERROR = np.pi / 4
_MAX_DISPLACEMENT = 3.0  # [m]
_DEPTH_BACKWARD = 15  # roadblocks
_DEPTH_FORWARD = 30
_MIN_LOOP_AREA = 1.0  # [m^2]


def route_lanes(road_map: RoadMap, roadblock_ids: Sequence[str]) -> list[str]:
    """Ids of the lanes and lane connectors of the route, without repetition, in route order."""
    return list(dict.fromkeys(lane for id_ in roadblock_ids for lane in road_map.roadblock(id_).lanes))


def correct_route(road_map: RoadMap, roadblock_ids: Sequence[str], ego_pose: np.ndarray) -> list[str]:
    """Repair the route of a log.

    It then starts at the ego's roadblock (searched backward from the route, else forward to it), has no missing links,
    and ends where it would cross itself.

    Args:
        road_map: the map.
        roadblock_ids: of the log.
        ego_pose: (3,) UTM x [m], y [m], heading [rad] of the rear axle.

    Returns:
        Ids of the roadblocks and roadblock connectors, in order.

    Raises:
        MTDriveError: there is no route, where navsim fails as well, or a roadblock is not in the map.
    """
    route = list(dict.fromkeys(roadblock_ids))
    if not route:
        raise MTDriveError("The scene has no route (roadblock_ids is empty), and navsim cannot score it either.")
    for id_ in route:
        road_map.roadblock(id_)
    start, candidates = _current_roadblock(road_map, ego_pose, route)
    if start not in route:
        route = _join_route(road_map, route, start, candidates)
    return list(dict.fromkeys(_cut_loop(road_map, _link(road_map, route))))


def _current_roadblock(road_map: RoadMap, ego_pose: np.ndarray, route: list[str]) -> tuple[str, list[str]]:
    """Ids of the most plausible roadblock of the ego, and of all plausible ones."""
    nearby = _nearby_roadblocks(road_map, ego_pose)
    # (roadblock, displacement) of each fitting lane, by whether it is on the route
    fitting: dict[bool, list[tuple[str, float]]] = {True: [], False: []}
    closest = []
    for id_ in nearby:
        closest.append(np.inf)
        for lane in road_map.roadblocks[id_].lanes:
            baseline = road_map.lanes[lane].baseline
            distance = ((baseline[:, :2] - ego_pose[:2]) ** 2).sum(axis=-1) ** 0.5
            nearest = np.argmin(distance)
            heading_error = abs(normalize_angle(baseline[nearest, 2] - ego_pose[2]))
            closest[-1] = min(closest[-1], distance[nearest])
            if heading_error < _MAX_HEADING_ERROR and distance[nearest] < _MAX_DISPLACEMENT:
                fitting[id_ in route].append((id_, distance[nearest]))
    for options in (fitting[True], fitting[False], list(zip(nearby, closest, strict=True))):
        if options:
            ids, displacements = zip(*options, strict=True)
            return ids[int(np.argmin(displacements))], list(ids)
    raise MTDriveError(f"Map {road_map.location} has no roadblock at all.")


def _nearby_roadblocks(road_map: RoadMap, ego_pose: np.ndarray) -> list[str]:
    """Ids of the roadblocks and connectors around the rear axle; where there are none, the nearest of each."""
    areas = (road_map.roadblock_area, road_map.connector_area)
    nearby = [area.ids[row] for area in areas for row in area.within_window(ego_pose, _SEARCH_RADIUS)]
    return nearby or [area.ids[area.nearest(shapely.Point(ego_pose[:2]))] for area in areas if len(area.ids)]


def _join_route(road_map: RoadMap, route: list[str], start: str, candidates: list[str]) -> list[str]:
    """The route with the roadblocks between the ego and it in front, if a connection is found."""
    path = _search(road_map, route[0], candidates, _DEPTH_BACKWARD, forward=False)
    if path is not None:
        return path[::-1][:-1] + route
    path = _search(road_map, start, route[:3], _DEPTH_FORWARD)
    if path is not None:
        return path + route[route.index(path[-1]) + 1 :]
    return route


def _link(road_map: RoadMap, route: list[str]) -> list[str]:
    """Insert the roadblocks between route neighbours that do not follow each other."""
    linked = route[:1]
    for previous, current in pairwise(route):
        if previous not in road_map.roadblocks[current].incoming:
            path = _search(road_map, previous, [current], _DEPTH_FORWARD)
            if path is not None:
                linked += path[1:-1]
        linked.append(current)
    return linked


def _cut_loop(road_map: RoadMap, route: list[str]) -> list[str]:
    """End the route before a connector that overlaps an earlier connector."""
    passed: dict[str, shapely.Polygon] = {}
    for index, id_ in enumerate(route):
        roadblock = road_map.roadblocks[id_]
        if not roadblock.is_connector:
            continue
        others = np.array(list(passed.values()), dtype=object)
        if np.any(shapely.area(shapely.intersection(others, roadblock.polygon)) > _MIN_LOOP_AREA):
            return route[:index]
        passed[id_] = roadblock.polygon
    return route


def _search(
    road_map: RoadMap, start: str, targets: Collection[str], max_depth: int, forward: bool = True
) -> list[str] | None:
    """Breadth-first path of at most max_depth roadblocks from start to the first target met, both included.

    The official search keeps no set of visited roadblocks, so a roadblock may be queued several times in one
    level; the first occurrence decides which target is met first, the last one who its parent is.

    Raises:
        MTDriveError: a roadblock leads to an id that is no whole number (`map_ids`).
    """
    first_seen = last_seen = [start]
    parents: list[dict[str, str]] = []
    for _ in range(max_depth):
        for id_ in first_seen:
            if id_ in targets:
                path = [id_]
                for parent_of in reversed(parents):
                    path.append(parent_of[path[-1]])
                return path[::-1]
            road_map.roadblock(id_)  # raises for an id that is no number, as the official search does
        children = {id_: _neighbours(road_map, id_, forward) for id_ in first_seen}
        first_seen = list(dict.fromkeys(child for id_ in first_seen for child in children[id_]))
        level: dict[str, str] = {}
        for id_ in last_seen:
            for child in children[id_]:
                level.pop(child, None)
                level[child] = id_
        last_seen = list(level)
        parents.append(level)
    return None


def _neighbours(road_map: RoadMap, id_: str, forward: bool) -> list[str]:
    roadblock = road_map.roadblocks[id_]
    edges = roadblock.outgoing if forward else roadblock.incoming
    return [edge for edge in edges if edge in road_map.roadblocks or not edge.isdecimal()]
