"""Ids and geometries in a map's columns, read as nuplan-devkit reads them.

The expected values were printed by nuplan-devkit's own `NuPlanMap` (e924167) with pyogrio 0.13 and pandas 3.1, on the
same changed files.
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import sqlite3
import struct
from collections import Counter

import numpy as np
import pytest
import shapely

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.polygons import pack, polygons_to_local, unpack
from mtdrive.simulation.metrics.polygon_index import build_polygon_index, mark_contained
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.maps import load_map
from mtdrive.simulation.navsim_format.road_map import RoadMap
from mtdrive.simulation.pdm_closed.route import correct_route
from mtdrive.simulation.scene import DrivableMap, MapLayer
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.compile import compile_scene
from mtdrive.simulation.scene_cache.drivable import map_window
from support import reference

BOSTON = reference.MAPS_ROOT / "us-ma-boston/9.12.1817/map.gpkg"
LOG, TOKEN = "2021.06.11.12.10.21_veh-36_00100_00377", "6bea526590790a85"
ID_COLUMNS = [
    ("lane_connectors", "exit_lane_fid"),
    ("lane_connectors", "entry_lane_fid"),
    ("lane_connectors", "lane_group_connector_fid"),
    ("lanes_polygons", "lane_group_fid"),
    ("gen_lane_connectors_scaled_width_polygons", "lane_connector_fid"),
    ("lane_group_connectors", "from_lane_group_fid"),
    ("lane_group_connectors", "to_lane_group_fid"),
]
AREA_LAYERS = [
    "lanes_polygons",
    "gen_lane_connectors_scaled_width_polygons",
    "lane_groups_polygons",
    "lane_group_connectors",
    "intersections",
    "carpark_areas",
]


@pytest.fixture
def changed(tmp_path):
    """Loads Boston's map after an SQL script has changed it."""

    def change(script: str) -> RoadMap:
        shutil.copytree(reference.MAPS_ROOT, tmp_path / "maps")
        path = tmp_path / "maps" / BOSTON.relative_to(reference.MAPS_ROOT)
        with sqlite3.connect(path) as database:
            database.create_function("multi", -1, multipolygon)
            database.create_function("multiline", -1, multiline)
            database.executescript(script)
        return load_map(path)

    return change


def retyped(table: str, column: str, kind: str) -> str:
    """SQL that makes a column another type."""
    return (
        f"ALTER TABLE {table} RENAME COLUMN {column} TO old; ALTER TABLE {table} ADD COLUMN {column} {kind};"
        f"UPDATE {table} SET {column} = old; ALTER TABLE {table} DROP COLUMN old;"
    )


def multipolygon(*blobs: bytes) -> bytes:
    """The GeoPackage multipolygon of polygons that have an envelope of 32 bytes."""
    parts = [shapely.from_wkb(blob[40:]) for blob in blobs]
    return b"GP\0\1" + struct.pack("<i", 4326) + shapely.to_wkb(shapely.MultiPolygon(parts))


def window() -> list[logs.Frame]:
    frames = logs.read_log(logs.log_path(reference.DATA_ROOT, "test", LOG))
    return list(logs.scene_windows(frames, [TOKEN])[TOKEN])


def test_text_ids_lead_where_numbers_do(changed):
    road_map = changed("".join(retyped(*column, "TEXT") for column in ID_COLUMNS))
    assert road_map.lanes["60259"].successors == ("70439", "71234")
    assert road_map.lanes["61118"].successors == ("69862",)
    block, connector = road_map.roadblocks["71575"], road_map.roadblocks["60354"]
    assert (block.incoming, block.outgoing, block.lanes) == ((), ("60354", "61046", "68383"), ("60348", "68909"))
    assert (connector.incoming, connector.outgoing, connector.lanes) == (("71575",), ("67354",), ("68293",))
    plain, text = (compile_scene(window(), used, "test") for used in (load_map(BOSTON), road_map))
    np.testing.assert_array_equal(text.centerline, plain.centerline)
    np.testing.assert_array_equal(text.drivable_map.on_route, plain.drivable_map.on_route)


SUCCESSORS = {"60259": ("70439", "71234"), "62990": ("60786",), "60786": ("67165",), "61118": ("69862",)}


@pytest.mark.parametrize(
    ("script", "changes"),
    [
        ("", {}),
        (
            "UPDATE lane_connectors SET entry_lane_fid = NULL WHERE fid = 60786",
            {"60786": ("nan",), "61118": ("69862.0",)},
        ),
        ("UPDATE lane_connectors SET exit_lane_fid = NULL WHERE fid = 60786", {"62990": ()}),
        (
            retyped("lane_connectors", "entry_lane_fid", "REAL"),
            {"60786": ("67165.0",), "61118": ("69862.0",)},
        ),
        (retyped("lane_connectors", "exit_lane_fid", "REAL"), {}),
    ],
    ids=["as it is", "no entry lane", "no exit lane", "real entry lanes", "real exit lanes"],
)
def test_successors_are_those_of_the_official_map(changed, script, changes):
    lanes = changed(script).lanes
    assert {id_: lanes[id_].successors for id_ in SUCCESSORS} == SUCCESSORS | changes


@pytest.mark.parametrize(
    "script",
    [
        retyped("baseline_paths", "lane_fid", "TEXT"),  # which is NULL for every connector
        retyped("lane_connectors", "exit_lane_fid", "TEXT") + "UPDATE lane_connectors SET exit_lane_fid = '62990.0'",
        "UPDATE lane_connectors SET exit_lane_fid = x'00'",
    ],
)
def test_ids_at_which_the_official_code_fails_are_refused(changed, script):
    with pytest.raises(MTDriveError, match=r"map\.gpkg is damaged: layer .* holds an id that is"):
        changed(script)


def test_a_search_that_meets_an_id_with_a_decimal_point_fails_its_scene(changed):
    """There nuplan-devkit raises as well: `int("67354.0")`."""
    road_map = changed(retyped("lane_group_connectors", "to_lane_group_fid", "REAL"))
    assert road_map.roadblocks["60354"].outgoing == ("67354.0",)
    assert road_map.roadblocks["71575"].outgoing == ("60354", "61046", "68383")
    pose = np.array([*road_map.roadblocks["71575"].polygon.centroid.coords[0], 0.0])
    assert correct_route(load_map(BOSTON), ["71575", "67354"], pose) == ["71575", "60354", "67354"]
    with pytest.raises(MTDriveError, match=r"no roadblock [0-9]+\.0"):
        correct_route(road_map, ["71575", "67354"], pose)


def test_multipolygons_of_one_part_are_the_polygon(changed):
    road_map = changed("".join(f"UPDATE {layer} SET geom = multi(geom);" for layer in AREA_LAYERS))
    assert {area.geom_type for area in road_map.intersection_area.polygons} == {"MultiPolygon"}
    plain, multi = (compile_scene(window(), used, "test") for used in (load_map(BOSTON), road_map))
    np.testing.assert_array_equal(multi.centerline, plain.centerline)
    np.testing.assert_array_equal(multi.drivable_map.ids, plain.drivable_map.ids)
    np.testing.assert_array_equal(multi.drivable_map.polygons.xy, plain.drivable_map.polygons.xy)
    assert not road_map.notes


def test_parts_of_a_multipolygon_are_one_area(changed):
    """A lane in two parts is one lane: a car on both is not in several lanes."""
    lanes = load_map(BOSTON).lanes
    road_map = changed(
        "UPDATE lanes_polygons SET geom = (SELECT multi(lanes_polygons.geom, other.geom) FROM lanes_polygons AS other "
        "WHERE other.fid = 68909) WHERE fid = 60348"
    )
    assert road_map.lanes["60348"].polygon.equals(lanes["60348"].polygon | lanes["68909"].polygon)


RING = shapely.box(0, 0, 10, 10) - shapely.box(2, 2, 8, 8)
ISLAND, BESIDE = shapely.box(4, 4, 5, 6), shapely.box(12, 0, 14, 3) - shapely.box(12.5, 1, 13, 2)
PARTS = [RING, ISLAND, BESIDE, shapely.box(10, 10, 11, 11)]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (1, 3, 2, 0), (3, 0, 2, 1)])
def test_multipolygons_are_kept_and_hold_the_points_that_shapely_says(order):
    area = shapely.MultiPolygon([PARTS[i] for i in order])
    packed = pack(np.array([RING, area, PARTS[2]]))
    assert shapely.equals(unpack(packed), [RING, area, PARTS[2]]).all()
    assert unpack(polygons_to_local(packed, np.array([3.0, 1.0, 0.7])))[1].area == pytest.approx(area.area)
    ids, layer = np.array(["1", "2", "3"]), np.zeros(3, dtype=np.int8)
    index = build_polygon_index(DrivableMap(packed, layer, ids, np.ones(3, dtype=bool)))
    points = np.stack(np.meshgrid(*[np.arange(-1.0, 16.0, 0.25)] * 2), axis=-1).reshape(-1, 2)
    inside = np.empty(len(points), dtype=bool)
    mark_contained(index, 1, points, inside)
    np.testing.assert_array_equal(inside, shapely.contains_xy(area, points))


def test_an_area_without_geometry_holds_nothing_and_is_named(changed, tmp_path, caplog):
    whole = load_map(BOSTON)
    fid = whole.intersection_area.ids[0]
    center = np.array(whole.intersection_area.polygons[0].centroid.coords[0])
    road_map = changed(
        f"UPDATE intersections SET geom = NULL WHERE fid = {fid};"
        "UPDATE lanes_polygons SET geom = NULL WHERE fid = 62985"
    )
    layers = [Counter(map_window(used, center).layer.tolist()) for used in (whole, road_map)]
    assert [counts[MapLayer.ROADBLOCK] for counts in layers] == [4, 4]
    assert [counts[MapLayer.INTERSECTION] for counts in layers] == [1, 0]
    assert road_map.lanes["62985"].polygon.is_empty
    with caplog.at_level(logging.WARNING):
        report = build_caches(
            reference.DATA_ROOT, tmp_path / "maps", "test", tmp_path / "caches", tokens=[TOKEN], workers=1
        )
    assert report.built == [TOKEN]
    assert report.notes == road_map.notes == [record.message for record in caplog.records]
    assert f"Map us-ma-boston has no geometry for 1 of layer intersections ({fid})" in " ".join(report.notes)
    assert "layer lanes_polygons (62985)" in " ".join(report.notes)


def test_a_red_light_in_two_parts_stops_as_the_same_light_in_one():
    """A connector that is cut in two, without a gap, is as far away as before."""
    road_map, light = load_map(BOSTON), "62448"
    polygon = road_map.lanes[light].polygon
    left, bottom, right, top = polygon.bounds
    half = polygon & shapely.box(left, bottom, (left + right) / 2, top)
    parts = shapely.MultiPolygon([*shapely.get_parts(half), *shapely.get_parts(polygon - half)])
    cut = dataclasses.replace(road_map.lanes[light], polygon=parts)
    cut_map = dataclasses.replace(road_map, lanes={**road_map.lanes, light: cut})
    plans = {}
    for name, used, is_red in (("free", road_map, False), ("red", road_map, True), ("red parts", cut_map, True)):
        frames = [frame | {"traffic_lights": [(light, is_red)]} for frame in window()]
        plans[name] = compile_scene(frames, used, "test").references["epdms_v2"].states
    np.testing.assert_allclose(plans["red parts"], plans["red"], rtol=0, atol=1e-9)
    assert np.abs(plans["red"] - plans["free"]).max() > 0.1


def multiline(*blobs: bytes) -> bytes:
    """The GeoPackage multiline of lines that have an envelope of 32 bytes."""
    parts = [shapely.from_wkb(blob[40:]) for blob in blobs]
    return b"GP\0\1" + struct.pack("<i", 4326) + shapely.to_wkb(shapely.MultiLineString(parts))


def again(table: str, column: str, id_: str) -> str:
    """SQL that repeats the row of one lane or connector."""
    return (
        f"INSERT INTO {table} (fid, geom, {column}) SELECT 999001, geom, {column} FROM {table} WHERE {column} = {id_};"
    )


def test_a_baseline_in_several_parts_has_a_length_and_no_points(changed):
    lanes = changed("UPDATE baseline_paths SET geom = multiline(geom) WHERE lane_fid = 60348").lanes
    assert lanes["60348"].center_line.length == pytest.approx(84.99999999965603)
    with pytest.raises(MTDriveError, match="baseline path of lane 60348 is in several parts"):
        _ = lanes["60348"].baseline
    assert len(lanes["68909"].baseline) == 86


def test_rows_that_repeat_cost_the_lane_alone(changed):
    lanes = changed(
        again("baseline_paths", "lane_fid", "60348")
        + again("gen_lane_connectors_scaled_width_polygons", "lane_connector_fid", "70439")
    ).lanes
    with pytest.raises(MTDriveError, match="Lane 60348 has 2 baseline paths"):
        _ = lanes["60348"].center_line
    assert lanes["70439"].polygon is None
    assert (len(lanes["70439"].baseline), len(lanes["68909"].baseline)) == (22, 86)


def test_scenes_away_from_a_baseline_in_parts_do_not_fail(changed, tmp_path):
    tokens = sorted(set(reference.load("trajectories.npz")["token"].tolist()))
    on_route = {reference.scenes()[token].route_lane_ids[0]: token for token in tokens}
    lane, token = next((lane, token) for lane, token in on_route.items() if lane in load_map(BOSTON).lanes)
    changed(f"UPDATE baseline_paths SET geom = multiline(geom) WHERE {lane} IN (lane_fid, lane_connector_fid)")
    report = build_caches(reference.DATA_ROOT, tmp_path / "maps", "test", tmp_path / "out", tokens=tokens, workers=1)
    assert token in report.failed
    assert set(report.failed.values()) == {
        f"The baseline path of lane {lane} is in several parts; fetch the map again."
    }
    assert report.built
