"""nuPlan maps as OGC GeoPackages, written with sqlite3 alone.

Layers and columns are those of the real nuPlan maps; geometries are EPSG:4326, table `meta` names the UTM zone.
"""

from __future__ import annotations

import json
import sqlite3
import struct
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyproj

from mtdrive.simulation.runtime.files import atomic_path
from mtdrive.simulation.synthetic.curves import band
from mtdrive.simulation.synthetic.placement import LOCATIONS, Location, Placement
from mtdrive.simulation.synthetic.site import Connector, Lane, Site

SRS = 4326
APPLICATION_ID, USER_VERSION = 0x47504B47, 10300  # "GPKG", version 1.3.0
WKB = {"POINT": 1, "LINESTRING": 2, "POLYGON": 3}
TEXT, INTEGER, REAL, BOOLEAN, MEDIUM = "TEXT(256)", "INTEGER", "REAL", "BOOLEAN", "MEDIUMINT"
LAYERS: dict[str, tuple[str, dict[str, str]]] = {
    "baseline_paths": ("LINESTRING", {
        "path_type_fid": INTEGER, "creator_id": TEXT, "lane_fid": INTEGER, "lane_connector_fid": INTEGER,
        "dubins_node_fids": TEXT}),
    "boundaries": ("LINESTRING", {
        "boundary_segment_fids": TEXT, "has_reflectors": BOOLEAN, "boundary_type_fid": INTEGER, "creator_id": TEXT}),
    "carpark_areas": ("POLYGON", {"heading": REAL, "creator_id": TEXT}),
    "crosswalks": ("POLYGON", {
        "intersection_fids": TEXT, "lane_fids": TEXT, "creator_id": TEXT, "is_marked": BOOLEAN}),
    "dubins_nodes": ("POINT", {"radius": REAL, "heading": REAL, "creator_id": TEXT}),
    "gen_lane_connectors_scaled_width_polygons": ("POLYGON", {
        "baseline_path_fid": INTEGER, "lane_connector_fid": INTEGER, "from_edge_fid": INTEGER, "to_edge_fid": INTEGER,
        "left_boundary_fid": INTEGER, "right_boundary_fid": INTEGER}),
    "generic_drivable_areas": ("POLYGON", {"creator_id": TEXT}),
    "intersections": ("POLYGON", {"creator_id": TEXT, "intersection_type_fid": INTEGER, "is_mini": BOOLEAN}),
    "lane_connectors": ("LINESTRING", {
        "exit_lane_group_fid": INTEGER, "exit_lane_fid": INTEGER, "entry_lane_group_fid": INTEGER,
        "lane_group_connector_fid": INTEGER, "entry_lane_fid": INTEGER, "intersection_fid": INTEGER,
        "turn_type_fid": INTEGER, "bulb_fids": TEXT, "traffic_light_stop_line_fids": TEXT, "overlap": MEDIUM,
        "creator_id": TEXT, "reflector_side_fid": INTEGER, "left_has_reflectors": BOOLEAN,
        "right_has_reflectors": BOOLEAN, "speed_limit_mps": REAL}),
    "lane_group_connectors": ("POLYGON", {
        "intersection_fid": INTEGER, "from_lane_group_fid": INTEGER, "to_lane_group_fid": INTEGER, "creator_id": TEXT,
        "from_edge_fid": INTEGER, "to_edge_fid": INTEGER, "left_boundary_fid": INTEGER, "right_boundary_fid": INTEGER}),
    "lane_groups_polygons": ("POLYGON", {
        "creator_id": TEXT, "left_boundary_fid": INTEGER, "right_boundary_fid": INTEGER, "from_edge_fid": INTEGER,
        "to_edge_fid": INTEGER}),
    "lanes_polygons": ("POLYGON", {
        "lane_group_fid": INTEGER, "lane_fid": INTEGER, "lane_index": MEDIUM, "creator_id": TEXT, "name": TEXT,
        "road_type_fid": INTEGER, "lane_type_fid": INTEGER, "width": MEDIUM, "left_offset": REAL, "right_offset": REAL,
        "min_speed": REAL, "max_speed": REAL, "stops": MEDIUM, "left_boundary_fid": INTEGER,
        "right_boundary_fid": INTEGER, "speed_limit_mps": REAL, "left_has_reflectors": BOOLEAN,
        "right_has_reflectors": BOOLEAN, "from_edge_fid": INTEGER, "to_edge_fid": INTEGER}),
    "road_segments": ("POLYGON", {"lane_group_fids": TEXT}),
    "stop_polygons": ("POLYGON", {
        "stop_polygon_type_fid": INTEGER, "lane_group_fid": INTEGER, "lane_fids": TEXT, "lane_connector_fids": TEXT,
        "traffic_light_fids": TEXT, "crosswalk_fids": TEXT, "precedence_area_fids": TEXT, "creator_id": TEXT}),
    "traffic_lights": ("POINT", {"traffic_light_type_fid": INTEGER, "heading": REAL, "creator_id": TEXT}),
    "walkways": ("POLYGON", {"creator_id": TEXT}),
}  # fmt: skip
STOP_DEPTH = 1.0  # [m] of the polygon before a stop line
TURNS = {"straight": 0, "left": 1, "right": 2}


@dataclass(frozen=True, eq=False)
class Feature:
    """One row of a map layer."""

    layer: str
    """Name of the layer."""

    fid: int
    """Feature id, unique within the map."""

    points: np.ndarray
    """(N, 2) geometry in UTM [m]."""

    attributes: dict[str, object]
    """Column -> value; columns that are missing are NULL."""


class SiteFeatures:
    """The rows of one placed site. fid: by the site's names of lanes, groups, connectors and intersections."""

    def __init__(self, site: Site, placement: Placement):
        self.rows: list[Feature] = []
        self._site, self._placement, self._next = site, placement, placement.first_fid
        names = (*site.groups, *site.lanes, *site.intersections, *site.group_connectors, *site.connectors)
        self.fid = {name: self._new_fid() for name in names}
        for name, ring in site.groups.items():
            self._add("lane_groups_polygons", ring, self.fid[name])
            self._add("road_segments", ring, lane_group_fids=str(self.fid[name]))
        for lane in site.lanes.values():
            self._add_lane(lane)
        for name, ring in site.intersections.items():
            self._add("intersections", ring, self.fid[name], intersection_type_fid=5, is_mini=0)
        for name, group in site.group_connectors.items():
            self._add(
                "lane_group_connectors",
                group.ring,
                self.fid[name],
                from_lane_group_fid=self.fid[group.start],
                to_lane_group_fid=self.fid[group.end],
                intersection_fid=self.fid[group.intersection],
            )
        for connector in site.connectors.values():
            self._add_connector(connector)
        for crosswalk in site.crosswalks:
            self._add("crosswalks", np.vstack([crosswalk.xy, crosswalk.xy[:1]]), is_marked=1)
        for ring in site.carparks:
            self._add("carpark_areas", ring, heading=placement.heading)
        for ring in site.walkways:
            self._add("walkways", ring)
        for signal in site.signals:
            self._add(
                "traffic_lights", np.array([[signal.x, signal.y]]), traffic_light_type_fid=0, heading=signal.heading
            )

    def _new_fid(self) -> int:
        self._next += 1
        return self._next

    def _add(self, layer: str, points: np.ndarray, fid: int | None = None, **attributes: object) -> int:
        fid = self._new_fid() if fid is None else fid
        self.rows.append(Feature(layer, fid, self._placement.points(points), {"creator_id": "mtdrive", **attributes}))
        return fid

    def _edges(self, lane: Lane | Connector) -> dict[str, int]:
        fids = {}
        for side, offset in (("left", lane.width / 2), ("right", -lane.width / 2)):
            line = lane.curve.at(lane.curve.s, offset)[:, :2]
            fids[f"{side}_boundary_fid"] = self._add("boundaries", line, has_reflectors=0, boundary_type_fid=2)
        return fids

    def _add_lane(self, lane: Lane) -> None:
        fid, group = self.fid[lane.name], self.fid[lane.group]
        self._add(
            "lanes_polygons",
            _ribbon(lane),
            fid,
            lane_fid=fid,
            lane_group_fid=group,
            lane_index=lane.index,
            name=lane.name,
            width=round(lane.width),
            speed_limit_mps=lane.speed_limit,
            road_type_fid=0,
            lane_type_fid=0,
            stops=0,
            **self._edges(lane),
        )
        self._add("baseline_paths", lane.curve.xy, lane_fid=fid, path_type_fid=0)
        stop = lane.curve.parallel(0.0, start=lane.curve.length - STOP_DEPTH)
        self._add(
            "stop_polygons",
            band(stop, lane.width / 2, -lane.width / 2),
            stop_polygon_type_fid=2,
            lane_group_fid=group,
            lane_fids=str(fid),
        )

    def _add_connector(self, connector: Connector) -> None:
        fid, start, end = self.fid[connector.name], self._site.lanes[connector.start], self._site.lanes[connector.end]
        self._add(
            "lane_connectors",
            connector.curve.xy,
            fid,
            exit_lane_fid=self.fid[start.name],
            entry_lane_fid=self.fid[end.name],
            exit_lane_group_fid=self.fid[start.group],
            entry_lane_group_fid=self.fid[end.group],
            lane_group_connector_fid=self.fid[connector.group],
            intersection_fid=self.fid[connector.intersection],
            turn_type_fid=TURNS[connector.turn],
            overlap=0,
            speed_limit_mps=connector.speed_limit,
        )
        baseline = self._add("baseline_paths", connector.curve.xy, lane_connector_fid=fid, path_type_fid=0)
        self._add(
            "gen_lane_connectors_scaled_width_polygons",
            _ribbon(connector),
            lane_connector_fid=fid,
            baseline_path_fid=baseline,
            **self._edges(connector),
        )


def write_maps(root: Path, features: dict[str, list[Feature]]) -> None:
    """Write nuplan-maps-v1.0.json and every location's map.gpkg under root. features: by location name."""
    for location in LOCATIONS:
        with atomic_path(root / location.name / location.version / "map.gpkg") as path:
            _write(path, location, features.get(location.name, []))
    index = {location.name: {"version": location.version, "layers": {}} for location in LOCATIONS}
    with atomic_path(root / "nuplan-maps-v1.0.json") as path:
        path.write_text(json.dumps(index, indent=2))


def _write(path: Path, location: Location, features: Iterable[Feature]) -> None:
    to_degrees = pyproj.Transformer.from_crs(location.epsg, SRS, always_xy=True)
    by_layer: dict[str, list[Feature]] = defaultdict(list)
    for feature in features:
        by_layer[feature.layer].append(feature)
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {USER_VERSION}")
        _write_tables(connection)
        meta = {
            "mapName": location.name,
            "mapVersion": location.version,
            "isAerialImageAligned": "True",
            "projectedCoordSystem": f"epsg:{location.epsg}",
        }
        connection.executemany("INSERT INTO meta (key, value) VALUES (?, ?)", meta.items())
        for layer, (kind, columns) in LAYERS.items():
            rows = sorted(by_layer[layer], key=lambda row: row.fid)
            degrees = _transformed(to_degrees, [row.points for row in rows])
            bounds = _bounds(degrees)
            connection.execute(
                "INSERT INTO gpkg_contents VALUES (?, 'features', ?, '', '2024-01-01T00:00:00Z', ?, ?, ?, ?, ?)",
                (layer, layer, *bounds, SRS),
            )
            connection.execute("INSERT INTO gpkg_geometry_columns VALUES (?, 'geom', ?, ?, 0, 0)", (layer, kind, SRS))
            places = ", ".join("?" * (2 + len(columns)))
            connection.executemany(
                f"INSERT INTO {layer} (fid, geom, {', '.join(columns)}) VALUES ({places})",
                [(row.fid, pack_geometry(kind, points), *(row.attributes.get(column) for column in columns))
                 for row, points in zip(rows, degrees, strict=True)],
            )  # fmt: skip
    connection.close()


def _write_tables(connection: sqlite3.Connection) -> None:
    run = connection.execute
    run(
        "CREATE TABLE gpkg_spatial_ref_sys (srs_name TEXT NOT NULL, srs_id INTEGER NOT NULL PRIMARY KEY, organization "
        "TEXT NOT NULL, organization_coordsys_id INTEGER NOT NULL, definition TEXT NOT NULL, description TEXT)"
    )
    wgs84 = pyproj.CRS.from_epsg(SRS).to_wkt("WKT1_GDAL")
    connection.executemany("INSERT INTO gpkg_spatial_ref_sys VALUES (?, ?, ?, ?, ?, ?)", [
        ("Undefined Cartesian SRS", -1, "NONE", -1, "undefined", "undefined Cartesian coordinate reference system"),
        ("Undefined geographic SRS", 0, "NONE", 0, "undefined", "undefined geographic coordinate reference system"),
        ("WGS 84", SRS, "EPSG", SRS, wgs84, "longitude and latitude in degrees"),
    ])  # fmt: skip
    run(
        "CREATE TABLE gpkg_contents (table_name TEXT NOT NULL PRIMARY KEY, data_type TEXT NOT NULL, identifier TEXT "
        "UNIQUE, description TEXT DEFAULT '', last_change DATETIME NOT NULL, min_x DOUBLE, min_y DOUBLE, max_x DOUBLE, "
        "max_y DOUBLE, srs_id INTEGER, FOREIGN KEY (srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id))"
    )
    run(
        "CREATE TABLE gpkg_geometry_columns (table_name TEXT NOT NULL, column_name TEXT NOT NULL, geometry_type_name "
        "TEXT NOT NULL, srs_id INTEGER NOT NULL, z TINYINT NOT NULL, m TINYINT NOT NULL, PRIMARY KEY (table_name, "
        "column_name), UNIQUE (table_name), FOREIGN KEY (table_name) REFERENCES gpkg_contents(table_name), FOREIGN KEY "
        "(srs_id) REFERENCES gpkg_spatial_ref_sys(srs_id))"
    )
    run("CREATE TABLE meta (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, key TEXT, value TEXT)")
    run(
        "INSERT INTO gpkg_contents VALUES ('meta', 'attributes', 'meta', '', '2024-01-01T00:00:00Z', NULL, NULL, NULL, "
        "NULL, 0)"
    )
    for layer, (kind, columns) in LAYERS.items():
        fields = "".join(f", {name} {sql}" for name, sql in columns.items())
        run(f"CREATE TABLE {layer} (fid INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL, geom {kind}{fields})")


def _transformed(transformer: pyproj.Transformer, pieces: list[np.ndarray]) -> list[np.ndarray]:
    if not pieces:
        return []
    points = np.vstack(pieces)
    degrees = np.column_stack(transformer.transform(points[:, 0], points[:, 1]))
    return np.split(degrees, np.cumsum([len(piece) for piece in pieces])[:-1])


def _bounds(pieces: list[np.ndarray]) -> tuple[float | None, ...]:
    if not pieces:
        return (None,) * 4
    points = np.vstack(pieces)
    return (*points.min(axis=0).tolist(), *points.max(axis=0).tolist())


def pack_geometry(kind: str, points: np.ndarray) -> bytes:
    """GeoPackage geometry blob (header with envelope, little-endian WKB) of points (N, 2); a polygon is one ring."""
    (min_x, min_y), (max_x, max_y) = points.min(axis=0), points.max(axis=0)
    header = b"GP" + struct.pack("<BBi", 0, 0b011, SRS) + struct.pack("<4d", min_x, max_x, min_y, max_y)
    body = struct.pack("<BI", 1, WKB[kind])
    if kind == "POLYGON":
        body += struct.pack("<I", 1)
    if kind != "POINT":
        body += struct.pack("<I", len(points))
    return header + body + np.ascontiguousarray(points, dtype="<f8").tobytes()


def _ribbon(lane: Lane | Connector) -> np.ndarray:
    """Closed outline of a lane or connector."""
    return band(lane.curve, lane.width / 2, -lane.width / 2)
