"""Point-in-polygon queries over a drivable map, compiled.

Each polygon's edges are sorted into bands across its longer side, so that a ray from a point along its band meets few
edges: a road has some in every band. A point on the boundary is outside, as in shapely's `contains`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtdrive.simulation.runtime.identity_cache import cache_by_identity
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import DrivableMap

EDGES_PER_BAND = 1
MAX_BANDS = 512


class PolygonIndex(NamedTuple):
    """P polygons of a drivable map with their edges by band (B bands and E edges in all)."""

    layer: np.ndarray
    """(P,) int8, `MapLayer`."""
    on_route: np.ndarray
    """(P,) bool, lanes and lane connectors of the route."""
    bounds: np.ndarray
    """(P, 4) min x, min y, max x, max y [m]."""
    axis: np.ndarray
    """(P,) int8, 0 if the bands divide x, 1 if they divide y."""
    band_start: np.ndarray
    """(P + 1,) int64 offsets of the polygons into the bands."""
    bands_per_metre: np.ndarray
    """(P,) [1/m]."""
    edge_start: np.ndarray
    """(B + 1,) int64 offsets of the bands into `edges`."""
    edges: np.ndarray
    """(E, 4) for both ends the other coordinate, then the one that the bands divide [m]. An edge that crosses several
    bands is in each."""


@kernel
def _band(value, lowest, bands_per_metre, count):
    """Index of the band, of `count`, that holds a coordinate."""
    return min(max(int((value - lowest) * bands_per_metre), 0), count - 1)


@kernel
def _build(xy, ring_start, polygon_start, bounds):
    num_polygons = len(polygon_start) - 1
    axis = np.zeros(num_polygons, dtype=np.int8)
    band_start = np.zeros(num_polygons + 1, dtype=np.int64)
    bands_per_metre = np.zeros(num_polygons)
    for p in range(num_polygons):
        vertices = ring_start[polygon_start[p + 1]] - ring_start[polygon_start[p]]
        count = min(vertices // EDGES_PER_BAND + 1, MAX_BANDS)
        width, height = bounds[p, 2] - bounds[p, 0], bounds[p, 3] - bounds[p, 1]
        axis[p] = height > width
        side = max(width, height)
        bands_per_metre[p] = count / side if side > 0.0 else 0.0
        band_start[p + 1] = band_start[p] + count

    edge_start = np.zeros(band_start[num_polygons] + 1, dtype=np.int64)
    edges = np.empty((0, 4))
    free = edge_start
    for filling in (False, True):  # first count the edges of each band, then place them
        if filling:
            edge_start = np.cumsum(edge_start)
            edges = np.empty((edge_start[-1], 4))
            free = edge_start.copy()
        for p in range(num_polygons):
            along, across = axis[p], 1 - axis[p]
            lowest = bounds[p, along]
            count = band_start[p + 1] - band_start[p]
            for r in range(polygon_start[p], polygon_start[p + 1]):
                for v in range(ring_start[r], ring_start[r + 1] - 1):
                    low, high = min(xy[v, along], xy[v + 1, along]), max(xy[v, along], xy[v + 1, along])
                    first = band_start[p] + _band(low, lowest, bands_per_metre[p], count)
                    last = band_start[p] + _band(high, lowest, bands_per_metre[p], count)
                    for band in range(first, last + 1):
                        if filling:
                            edge = edges[free[band]]
                            edge[0], edge[1] = xy[v, across], xy[v, along]
                            edge[2], edge[3] = xy[v + 1, across], xy[v + 1, along]
                            free[band] += 1
                        else:
                            edge_start[band + 1] += 1
    return axis, band_start, bands_per_metre, edge_start, edges


@cache_by_identity
def build_polygon_index(drivable_map: DrivableMap) -> PolygonIndex:
    """Index the polygons of a map; done once per map."""
    polygons = drivable_map.polygons
    bounds = np.array(polygons.bounds)
    built = _build(np.array(polygons.xy), np.array(polygons.ring_start), np.array(polygons.polygon_start), bounds)
    return PolygonIndex(np.array(drivable_map.layer), np.array(drivable_map.on_route), bounds, *built)


@kernel
def mark_contained(index: PolygonIndex, p: int, points: np.ndarray, inside: np.ndarray) -> None:
    """Fill inside (n,) bool: whether polygon p strictly contains each of points (n, 2)."""
    edges, edge_start = index.edges, index.edge_start
    min_x, min_y, max_x, max_y = index.bounds[p, 0], index.bounds[p, 1], index.bounds[p, 2], index.bounds[p, 3]
    along, across = index.axis[p], 1 - index.axis[p]
    lowest = index.bounds[p, along]
    first_band, bands_per_metre = index.band_start[p], index.bands_per_metre[p]
    count = index.band_start[p + 1] - first_band
    for k in range(len(points)):
        inside[k] = False
        if not (min_x < points[k, 0] < max_x and min_y < points[k, 1] < max_y):
            continue
        x, y = points[k, across], points[k, along]  # as the edges lie: mirroring changes nothing
        band = first_band + _band(y, lowest, bands_per_metre, count)
        parity = False
        for e in range(edge_start[band], edge_start[band + 1]):
            x1, y1, x2, y2 = edges[e, 0], edges[e, 1], edges[e, 2], edges[e, 3]
            if (y1 > y) != (y2 > y):
                side = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)  # > 0: left of the edge
                if side == 0.0:
                    parity = False
                    break
                if (side > 0.0) == (y2 > y1):
                    parity = not parity
            elif y1 == y and (x1 == x or (y2 == y and (x1 > x) != (x2 > x))):
                parity = False
                break
        inside[k] = parity


@kernel
def in_layer(index: PolygonIndex, layer: int, x: float, y: float) -> bool:
    """Whether a polygon of the layer, a `MapLayer`, strictly contains (x, y)."""
    point = np.array([[x, y]])
    inside = np.zeros(1, dtype=np.bool_)
    for p in range(len(index.layer)):
        if index.layer[p] == layer:
            mark_contained(index, p, point, inside)
            if inside[0]:
                return True
    return False
