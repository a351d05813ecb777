"""The map around the ego (navsim `PDMDrivableMap.from_simulation`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.polygons import pack, polygons_to_local
from mtdrive.simulation.navsim_format.road_map import Area, RoadMap
from mtdrive.simulation.scene import DrivableMap, MapLayer

RADIUS = 100.0  # [m] half side of the square around the ego centre
_LEAF_SIZE = 10  # of the official search tree: it decides the order of hits


@dataclass(frozen=True)
class MapWindow:
    """P map polygons around the ego in UTM.

    In navsim's order: roadblocks, lanes, connectors, intersections, car parks.
    """

    ids: list[str]
    """P map ids."""

    layer: np.ndarray
    """(P,) int8 MapLayer."""

    polygons: np.ndarray
    """(P,) object array of shapely polygons and multipolygons [m]."""

    @cached_property
    def tree(self) -> shapely.STRtree:
        """Search tree of the polygons, built as navsim builds it."""
        return shapely.STRtree(self.polygons, _LEAF_SIZE)

    def at(self, point: np.ndarray) -> list[str]:
        """Ids of the polygons that touch a point (2,), in the order of the official search tree."""
        return [self.ids[row] for row in self.tree.query(shapely.Point(point[:2]), predicate="intersects")]


def map_window(road_map: RoadMap, center: np.ndarray) -> MapWindow:
    """The polygons that meet the square of half side RADIUS around center (2,).

    Lanes and connectors are those of the roadblocks that meet it, but for those whose area is empty.

    Raises:
        MTDriveError: a lane connector has no polygon, or several.
    """

    def objects(area: Area, layer: MapLayer) -> list[tuple]:
        return [(area.ids[row], layer, area.polygons[row]) for row in area.within_window(center, RADIUS)]

    def lanes(area: Area, layer: MapLayer) -> list[tuple]:
        blocks = [road_map.roadblocks[area.ids[row]] for row in area.within_window(center, RADIUS)]
        return [(lane, layer, road_map.lanes[lane].polygon) for block in blocks for lane in block.lanes]

    rows = [
        *objects(road_map.roadblock_area, MapLayer.ROADBLOCK),
        *lanes(road_map.roadblock_area, MapLayer.LANE),
        *lanes(road_map.connector_area, MapLayer.LANE_CONNECTOR),
        *objects(road_map.intersection_area, MapLayer.INTERSECTION),
        *objects(road_map.carpark_area, MapLayer.CARPARK_AREA),
    ]
    for id_, _, polygon in rows:
        if polygon is None:
            raise MTDriveError(f"Lane {id_} of map {road_map.location} has no polygon, or several.")
    rows = [row for row in rows if not row[2].is_empty]
    if not rows:
        raise MTDriveError(f"Map {road_map.location} has no road within {RADIUS:.0f} m of {center[:2]}.")
    ids, layers, polygons = zip(*rows, strict=True)
    return MapWindow(list(ids), np.array(layers, dtype=np.int8), np.array(polygons, dtype=object))


def drivable_map(window: MapWindow, route_lane_ids: Sequence[str], origin: np.ndarray) -> DrivableMap:
    """The window in the local frame of origin (3,), with the lanes of the route marked."""
    is_lane = (window.layer == MapLayer.LANE) | (window.layer == MapLayer.LANE_CONNECTOR)
    route = set(route_lane_ids)
    return DrivableMap(
        polygons=polygons_to_local(pack(window.polygons), origin),
        layer=window.layer,
        ids=np.array(window.ids),
        on_route=is_lane & np.array([id_ in route for id_ in window.ids]),
    )
