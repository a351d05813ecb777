"""Flat polygons (`scene.Polygons`): from and to shapely geometries, and into another frame."""

from __future__ import annotations

import numpy as np
import shapely

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import points_to_local
from mtdrive.simulation.scene import Polygons

_AREA_TYPES = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


def pack(polygons: np.ndarray) -> Polygons:
    """Flatten an object array (P,) of shapely polygons and multipolygons.

    Raises:
        MTDriveError: one is missing, empty or no polygon.
    """
    if not np.isin(shapely.get_type_id(polygons), _AREA_TYPES).all() or shapely.is_empty(polygons).any():
        raise MTDriveError("The map around the scene holds something missing or empty where a polygon should be.")
    parts, owner = shapely.get_parts(polygons, return_index=True)
    shell_area = shapely.area(shapely.polygons(shapely.get_exterior_ring(parts)))
    order = np.lexsort((-shell_area, owner))
    order = order[~shapely.is_empty(parts[order])]
    rings, part = shapely.get_rings(parts[order], return_index=True)
    return _build(
        shapely.get_coordinates(rings),
        _offsets(shapely.get_num_coordinates(rings)),
        _offsets(np.bincount(owner[order][part], minlength=len(polygons))),
    )


def unpack(polygons: Polygons) -> np.ndarray:
    """The object array (P,) of shapely polygons and multipolygons that `pack` flattened."""
    offsets = (polygons.ring_start, polygons.polygon_start)
    shapes = shapely.from_ragged_array(shapely.GeometryType.POLYGON, polygons.xy, offsets)
    for p in np.flatnonzero(np.diff(polygons.polygon_start) > 1):
        shapes[p] = _with_parts(shapes[p])
    return shapes


def _with_parts(polygon: shapely.Polygon) -> shapely.Polygon | shapely.MultiPolygon:
    """The multipolygon, where a ring after the first is not a hole but the shell of a further part."""
    parts: list[tuple[shapely.LinearRing, list[shapely.LinearRing]]] = []
    for ring in shapely.get_rings(polygon):
        inside = shapely.Polygon(ring).representative_point()
        if parts and shapely.Polygon(*parts[-1]).contains(inside):
            parts[-1][1].append(ring)
        else:
            parts.append((ring, []))
    return polygon if len(parts) == 1 else shapely.MultiPolygon([shapely.Polygon(*part) for part in parts])


def polygons_to_local(polygons: Polygons, origin: np.ndarray) -> Polygons:
    """The same polygons in the frame whose pose is origin (3,)."""
    return _build(points_to_local(polygons.xy, origin), polygons.ring_start, polygons.polygon_start)


def _build(xy: np.ndarray, ring_start: np.ndarray, polygon_start: np.ndarray) -> Polygons:
    first = ring_start[polygon_start[:-1]]
    bounds = np.empty((len(first), 4))
    if len(first):
        bounds[:, :2] = np.minimum.reduceat(xy, first)
        bounds[:, 2:] = np.maximum.reduceat(xy, first)
    return Polygons(xy=xy, ring_start=ring_start, polygon_start=polygon_start, bounds=bounds)


def _offsets(counts: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
