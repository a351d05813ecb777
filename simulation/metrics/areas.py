"""Which parts of the map the ego's footprint is on (navsim `PDMScorer._calculate_ego_area`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtdrive.simulation.metrics.polygon_index import PolygonIndex, mark_contained
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import MapLayer

LANE, LANE_CONNECTOR = int(MapLayer.LANE), int(MapLayer.LANE_CONNECTOR)
INTERSECTION, CARPARK_AREA = int(MapLayer.INTERSECTION), int(MapLayer.CARPARK_AREA)
ROADBLOCK, DRIVABLE_AREA = int(MapLayer.ROADBLOCK), int(MapLayer.DRIVABLE_AREA)
ALL_CORNERS = 0b1111


class Areas(NamedTuple):
    """Areas that the footprints of N plans are on, over S steps."""

    multiple_lanes: np.ndarray
    """(N, S) bool, corners are in more than one lane (or connector) polygon, and none of these holds all four."""
    off_road: np.ndarray
    """(N, S) uint8, bit c is set if corner c is in no roadblock, intersection, car park or drivable area."""
    off_route: np.ndarray
    """(N, S) bool, the centre is in no lane (or connector) of the route."""
    in_intersection: np.ndarray
    """(N, S) bool, the centre is in an intersection."""


@kernel
def _mark_areas(points, index, multiple_lanes, off_road, off_route, in_intersection):
    """Fill the (S,) areas of one plan from points (S * 5, 2): four corners, then the centre, of each step."""
    num_steps = len(off_road)
    lanes_touched, on_road = np.zeros(num_steps, dtype=np.int64), np.zeros(num_steps, dtype=np.int64)
    in_one_lane, on_route = np.zeros(num_steps, dtype=np.bool_), np.zeros(num_steps, dtype=np.bool_)
    inside = np.empty(len(points), dtype=np.bool_)
    min_x, max_x = points[:, 0].min(), points[:, 0].max()
    min_y, max_y = points[:, 1].min(), points[:, 1].max()
    for p in range(len(index.layer)):
        layer = index.layer[p]
        is_lane = layer in (LANE, LANE_CONNECTOR)
        if not is_lane and layer not in (ROADBLOCK, INTERSECTION, CARPARK_AREA, DRIVABLE_AREA):
            continue
        if index.bounds[p, 0] >= max_x or index.bounds[p, 2] <= min_x:
            continue
        if index.bounds[p, 1] >= max_y or index.bounds[p, 3] <= min_y:
            continue
        mark_contained(index, p, points, inside)
        for t in range(num_steps):
            corners = 0
            for corner in range(4):
                corners |= inside[5 * t + corner] << corner
            centre = inside[5 * t + 4]
            if is_lane:
                lanes_touched[t] += corners != 0
                in_one_lane[t] |= corners == ALL_CORNERS
                on_route[t] |= centre and index.on_route[p]
            else:
                on_road[t] |= corners
                in_intersection[t] |= centre and layer == INTERSECTION
    for t in range(num_steps):
        multiple_lanes[t] = lanes_touched[t] > 1 and not in_one_lane[t]
        off_road[t] = ALL_CORNERS & ~on_road[t]
        off_route[t] = not on_route[t]


@kernel
def _find_areas(points, index):
    num_rows, num_steps = points.shape[:2]
    multiple_lanes = np.zeros((num_rows, num_steps), dtype=np.bool_)
    off_road = np.zeros((num_rows, num_steps), dtype=np.uint8)
    off_route = np.zeros((num_rows, num_steps), dtype=np.bool_)
    in_intersection = np.zeros((num_rows, num_steps), dtype=np.bool_)
    for i in range(num_rows):
        flat = points[i].reshape(num_steps * 5, 2)
        _mark_areas(flat, index, multiple_lanes[i], off_road[i], off_route[i], in_intersection[i])
    return multiple_lanes, off_road, off_route, in_intersection


def find_areas(points: np.ndarray, index: PolygonIndex) -> Areas:
    """The areas that footprints are on.

    points: (N, S, 5, 2), the four corners and the centre [m].
    """
    return Areas(*_find_areas(points, index))
