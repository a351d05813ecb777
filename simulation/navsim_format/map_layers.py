"""From the layers of a GeoPackage to a road map."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import shapely

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.geopackage import BadLayer, open_geopackage, read_table, unpack_geometry
from mtdrive.simulation.navsim_format.map_ids import id_numbers, id_texts
from mtdrive.simulation.navsim_format.road_map import Area, Geometries, Lane, Roadblock, RoadMap

_CRS = re.compile(r"epsg:[0-9]{4,6}", re.IGNORECASE)
_MOST_SPEED = 1e3  # [m/s] that is a limit
_LINE_TYPES = [shapely.GeometryType.LINESTRING, shapely.GeometryType.MULTILINESTRING]
_AREA_TYPES = [shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON]


def read_geopackage(path: Path) -> RoadMap:
    """The map in a GeoPackage.

    Raises:
        MTDriveError: a layer is missing, the file is no GeoPackage, or it holds what no map can.
    """
    try:
        with open_geopackage(path) as database:
            return _read_map(path.parents[1].name, _GeoPackage(database, path.stat().st_size))
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise MTDriveError(f"Cannot read the map {path}: {error}; fetch it again.") from error
    except (shapely.errors.ShapelyError, pyproj.exceptions.ProjError, BadLayer) as error:
        raise MTDriveError(f"The map {path} is damaged: {error}; fetch it again.") from error


class _GeoPackage:
    """Layers of an open GeoPackage, reprojected to the CRS that its `meta` table names."""

    def __init__(self, database: sqlite3.Connection, size: int) -> None:
        self._database, self._size = database, size
        self.without_geometry: dict[str, list[str]] = {}
        values = dict(read_table(database, size, "meta", ("key", "value")))
        self._crs = values.get("projectedCoordSystem")
        if not isinstance(self._crs, str) or not _CRS.fullmatch(self._crs):
            raise BadLayer("table meta has no projectedCoordSystem such as epsg:32611")
        self._srs = dict(read_table(database, size, "gpkg_geometry_columns", ("table_name", "srs_id")))

    def read(self, layer: str, *columns: str) -> list[list]:
        """One list per column, rows in ascending fid order; column `geom` becomes projected shapely geometries."""
        if layer not in self._srs:
            raise BadLayer(f"it has no layer {layer}")
        rows = read_table(self._database, self._size, layer, columns, order="fid")
        table = [list(column) for column in zip(*rows, strict=True)] if rows else [[] for _ in columns]
        if "geom" in columns:
            index = columns.index("geom")
            table[index] = list(self._geometries(layer, table[index]))
        return table

    def read_area(self, layer: str, id_column: str = "fid") -> Area:
        """The polygons of a layer, by the ids in a column."""
        ids, geometries = self.read(layer, id_column, "geom")
        polygons = np.array(geometries, dtype=object)
        empty = shapely.is_missing(polygons) | shapely.is_empty(polygons)
        _check_type(layer, polygons[~empty], _AREA_TYPES)
        polygons[empty] = shapely.Polygon()
        area = Area(id_texts(layer, ids), Geometries(polygons))
        if empty.any():
            self.without_geometry[layer] = [area.ids[row] for row in np.flatnonzero(empty).tolist()]
        return area

    def _geometries(self, layer: str, blobs: list[bytes | None]) -> np.ndarray:
        if not isinstance(self._srs[layer], int):
            raise BadLayer(f"layer {layer} has no reference system")
        with np.errstate(invalid="ignore"):  # what is not finite is named below
            geometries = shapely.from_wkb(np.array([unpack_geometry(layer, blob) for blob in blobs], dtype=object))
        transformer = _transformer(self._srs[layer], self._crs)
        points = shapely.get_coordinates(geometries)
        points = np.column_stack(transformer.transform(points[:, 0], points[:, 1]))
        if not np.isfinite(points).all():  # what lies outside the projection becomes infinite
            raise BadLayer(f"layer {layer} holds a point that is nowhere on the map")
        return shapely.set_coordinates(geometries, points)


@lru_cache
def _transformer(source: int, target: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(source, target, always_xy=True)


def _read_map(location: str, package: _GeoPackage) -> RoadMap:
    roadblocks, roadblock_area, connector_area = _read_roadblocks(package)
    lanes, lane_area, lane_connector_area = _read_lanes(package)
    intersection_area, carpark_area = map(package.read_area, ("intersections", "carpark_areas"))
    return RoadMap(
        location=location,
        lanes=lanes,
        roadblocks=roadblocks,
        lane_area=lane_area,
        lane_connector_area=lane_connector_area,
        roadblock_area=roadblock_area,
        connector_area=connector_area,
        intersection_area=intersection_area,
        carpark_area=carpark_area,
        without_geometry=package.without_geometry,
    )


def _read_lanes(package: _GeoPackage) -> tuple[dict[str, Lane], Area, Area]:
    lines, *owners = package.read("baseline_paths", "geom", "lane_fid", "lane_connector_fid")
    present = [line for line in lines if line is not None]
    _check_type("baseline_paths", np.array(present, dtype=object), _LINE_TYPES)
    lane_lines, connector_lines = (_grouped(id_numbers("baseline_paths", fids), lines) for fids in owners)
    connector_layer = "gen_lane_connectors_scaled_width_polygons"
    connector_area = package.read_area(connector_layer, "lane_connector_fid")
    (connector_fids,) = package.read(connector_layer, "lane_connector_fid")
    connector_polygons = _grouped(id_numbers(connector_layer, connector_fids), connector_area.polygons)
    lane_area = package.read_area("lanes_polygons")

    lanes: dict[str, Lane] = {}
    successors: dict[int | None, list[str]] = {}
    layer = "lane_connectors"
    columns = ("fid", "exit_lane_fid", "entry_lane_fid", "lane_group_connector_fid", "speed_limit_mps")
    fids, leaves, enters, blocks, limits = package.read(layer, *columns)
    rows = zip(fids, id_numbers(layer, leaves), id_texts(layer, enters), id_texts(layer, blocks), limits, strict=True)
    for fid, left, entered, block, limit in rows:
        id_ = str(fid)
        _check_limit(layer, limit)
        polygons = connector_polygons.get(fid, ())
        polygon = polygons[0] if len(polygons) == 1 else None
        lanes[id_] = Lane(id_, block, polygon, tuple(connector_lines.get(fid, ())), limit, (entered,))
        successors.setdefault(left, []).append(id_)
    layer = "lanes_polygons"
    fids, blocks, limits = package.read(layer, "fid", "lane_group_fid", "speed_limit_mps")
    for fid, block, limit, polygon in zip(fids, id_texts(layer, blocks), limits, lane_area.polygons, strict=True):
        id_ = str(fid)
        _check_limit(layer, limit)
        lanes[id_] = Lane(id_, block, polygon, tuple(lane_lines.get(fid, ())), limit, tuple(successors.get(fid, ())))
    return lanes, lane_area, connector_area


def _read_roadblocks(package: _GeoPackage) -> tuple[dict[str, Roadblock], Area, Area]:
    layer = "lane_group_connectors"
    connector_area = package.read_area(layer)
    ends = package.read(layer, "from_lane_group_fid", "to_lane_group_fid")
    connector_lanes = _members(package, "lane_connectors", "lane_group_connector_fid")
    roadblocks: dict[str, Roadblock] = {}
    for id_, polygon, source, target in zip(
        connector_area.ids, connector_area.polygons, *(id_texts(layer, fids) for fids in ends), strict=True
    ):
        roadblocks[id_] = Roadblock(id_, polygon, True, tuple(connector_lanes.get(id_, ())), (source,), (target,))

    outgoing, incoming = (_by_number(connector_area.ids, id_numbers(layer, fids)) for fids in ends)
    roadblock_area = package.read_area("lane_groups_polygons")
    lanes = _members(package, "lanes_polygons", "lane_group_fid")
    for id_, polygon in zip(roadblock_area.ids, roadblock_area.polygons, strict=True):
        edges = (tuple(table.get(id_, ())) for table in (lanes, incoming, outgoing))
        roadblocks[id_] = Roadblock(id_, polygon, False, *edges)
    return roadblocks, roadblock_area, connector_area


def _members(package: _GeoPackage, layer: str, group_column: str) -> dict[str, list[str]]:
    fids, groups = package.read(layer, "fid", group_column)
    return _by_number([str(fid) for fid in fids], id_numbers(layer, groups))


def _by_number(ids: Sequence[str], numbers: list[int | None]) -> dict[str, list[str]]:
    """The ids by the id that each belongs to."""
    members: dict[str, list[str]] = {}
    for id_, number in zip(ids, numbers, strict=True):
        members.setdefault(str(number), []).append(id_)
    return members


def _grouped(owners: list[int | None], geometries: Iterable[Any]) -> dict[int | None, list]:
    """The geometries by the id that they belong to."""
    groups: dict[int | None, list] = {}
    for owner, geometry in zip(owners, geometries, strict=True):
        groups.setdefault(owner, []).append(geometry)
    return groups


def _check_type(layer: str, geometries: np.ndarray, wanted: list[shapely.GeometryType]) -> None:
    if wrong := set(shapely.get_type_id(geometries)) - set(map(int, wanted)):
        found = shapely.GeometryType(wrong.pop()).name
        raise BadLayer(f"layer {layer} holds a {found} where each is a {' or '.join(kind.name for kind in wanted)}")
    if shapely.is_empty(geometries).any():
        raise BadLayer(f"layer {layer} holds an empty {wanted[0].name}")


def _check_limit(layer: str, limit: object) -> None:
    if limit is not None and not (isinstance(limit, int | float) and 0 <= limit <= _MOST_SPEED):
        raise BadLayer(f"layer {layer} holds the speed limit {limit!r}, which is none in m/s")
