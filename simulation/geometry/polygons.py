"""Flat polygons (`scene.Polygons`): from and to shapely geometries, and into another frame."""

from __future__ import annotations

import numpy as np
import shapely

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import points_to_local
from mtdrive.simulation.scene import Polygons


def pack(polygons: np.ndarray) -> Polygons:
    """Flatten an object array (P,) of shapely polygons.

    Raises:
        MTDriveError: one is missing, empty or no polygon.
    """
    if (shapely.get_type_id(polygons) != shapely.GeometryType.POLYGON).any() or shapely.is_empty(polygons).any():
        raise MTDriveError("The map around the scene holds something missing or empty where a polygon should be.")
    rings, owner = shapely.get_rings(polygons, return_index=True)
    return _build(
        shapely.get_coordinates(rings),
        _offsets(shapely.get_num_coordinates(rings)),
        _offsets(np.bincount(owner, minlength=len(polygons))),
    )


def unpack(polygons: Polygons) -> np.ndarray:
    """The object array (P,) of shapely polygons that `pack` flattened."""
    offsets = (polygons.ring_start, polygons.polygon_start)
    return shapely.from_ragged_array(shapely.GeometryType.POLYGON, polygons.xy, offsets)


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
