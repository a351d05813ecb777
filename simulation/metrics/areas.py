"""On which parts of the map the ego's footprint stands (navsim `PDMScorer._calculate_ego_area`)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from mtdrive.simulation.metrics.polygon_index import PolygonIndex, contains
from mtdrive.simulation.scene import MapLayer

LANE, LANE_CONNECTOR = int(MapLayer.LANE), int(MapLayer.LANE_CONNECTOR)
INTERSECTION, CARPARK_AREA = int(MapLayer.INTERSECTION), int(MapLayer.CARPARK_AREA)
ROADBLOCK, DRIVABLE_AREA = int(MapLayer.ROADBLOCK), int(MapLayer.DRIVABLE_AREA)
ALL_CORNERS = 0b1111


class Areas(NamedTuple):
    """Areas of N plans over S steps.

    multiple_lanes: (N, S) bool, corners in more than one lane (or connector) polygon and none holds all four.
    off_road: (N, S) uint8, bit c set if corner c is in no roadblock, intersection, car park or drivable area.
    off_route: (N, S) bool, centre in no on-route lane (or connector).
    in_intersection: (N, S) bool, centre in an intersection.
    """

    multiple_lanes: np.ndarray
    off_road: np.ndarray
    off_route: np.ndarray
    in_intersection: np.ndarray


@njit(cache=True)
def _corners_inside(index, p, corners):
    inside = 0
    for corner in range(4):
        if contains(index, p, corners[corner, 0], corners[corner, 1]):
            inside |= 1 << corner
    return inside


@njit(cache=True)
def _find_areas(frames, corners, index):
    num_rows, num_steps, _ = frames.shape
    multiple_lanes = np.zeros((num_rows, num_steps), dtype=np.bool_)
    off_road = np.zeros((num_rows, num_steps), dtype=np.uint8)
    off_route = np.zeros((num_rows, num_steps), dtype=np.bool_)
    in_intersection = np.zeros((num_rows, num_steps), dtype=np.bool_)
    low, high = np.empty((num_steps, 2)), np.empty((num_steps, 2))
    lanes_touched = np.empty(num_steps, dtype=np.int64)
    in_one_lane, on_route = np.empty(num_steps, dtype=np.bool_), np.empty(num_steps, dtype=np.bool_)
    on_road = np.empty(num_steps, dtype=np.int64)

    for i in range(num_rows):
        lanes_touched[:], on_road[:] = 0, 0
        in_one_lane[:], on_route[:] = False, False
        row_low, row_high = np.full(2, np.inf), np.full(2, -np.inf)
        for t in range(num_steps):
            for d in range(2):
                low[t, d], high[t, d] = np.inf, -np.inf
                for corner in range(4):
                    low[t, d] = min(low[t, d], corners[i, t, corner, d])
                    high[t, d] = max(high[t, d], corners[i, t, corner, d])
                row_low[d] = min(row_low[d], low[t, d])
                row_high[d] = max(row_high[d], high[t, d])

        for p in range(len(index.layer)):
            bounds, layer = index.bounds[p], index.layer[p]
            if bounds[0] >= row_high[0] or bounds[2] <= row_low[0]:
                continue
            if bounds[1] >= row_high[1] or bounds[3] <= row_low[1]:
                continue
            is_lane = layer == LANE or layer == LANE_CONNECTOR
            is_road = layer == ROADBLOCK or layer == INTERSECTION or layer == CARPARK_AREA or layer == DRIVABLE_AREA
            for t in range(num_steps):
                if bounds[0] >= high[t, 0] or bounds[2] <= low[t, 0]:
                    continue
                if bounds[1] >= high[t, 1] or bounds[3] <= low[t, 1]:
                    continue
                x, y = frames[i, t, 0], frames[i, t, 1]
                if is_lane:
                    inside = _corners_inside(index, p, corners[i, t])
                    lanes_touched[t] += inside != 0
                    in_one_lane[t] |= inside == ALL_CORNERS
                    if index.on_route[p] and not on_route[t]:
                        on_route[t] = contains(index, p, x, y)
                elif is_road:
                    if on_road[t] != ALL_CORNERS:
                        on_road[t] |= _corners_inside(index, p, corners[i, t])
                    if layer == INTERSECTION and not in_intersection[i, t]:
                        in_intersection[i, t] = contains(index, p, x, y)
        for t in range(num_steps):
            multiple_lanes[i, t] = lanes_touched[t] > 1 and not in_one_lane[t]
            off_road[i, t] = ALL_CORNERS & ~on_road[t]
            off_route[i, t] = not on_route[t]
    return multiple_lanes, off_road, off_route, in_intersection


def find_areas(frames: np.ndarray, corners: np.ndarray, index: PolygonIndex) -> Areas:
    """Areas along footprints.

    Args:
        frames: (N, S, >= 2) centres.
        corners: (N, S, 4, 2).
        index: the map.
    """
    return Areas(*_find_areas(frames, corners, index))
