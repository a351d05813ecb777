"""Ids and geometries in a map's columns, read as nuplan-devkit reads them.

The expected values were printed by nuplan-devkit's own `NuPlanMap` (e924167) with pyogrio 0.13 and pandas 3.1, on the
same changed files.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.maps import RoadMap, load_map
from mtdrive.simulation.pdm_closed.route import correct_route
from mtdrive.simulation.scene_cache.compile import compile_scene
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


@pytest.fixture
def changed(tmp_path):
    """Loads Boston's map after an SQL script has changed it."""

    def change(script: str) -> RoadMap:
        path = tmp_path / "us-ma-boston/9.12.1817/map.gpkg"
        path.parent.mkdir(parents=True)
        shutil.copy(BOSTON, path)
        with sqlite3.connect(path) as database:
            database.executescript(script)
        return load_map(path)

    return change


def retyped(table: str, column: str, kind: str) -> str:
    """SQL that makes a column another type."""
    return (
        f"ALTER TABLE {table} RENAME COLUMN {column} TO old; ALTER TABLE {table} ADD COLUMN {column} {kind};"
        f"UPDATE {table} SET {column} = old; ALTER TABLE {table} DROP COLUMN old;"
    )


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


@pytest.mark.parametrize(
    ("script", "after_60259", "after_62990", "after_60786", "after_61118"),
    [
        ("", ("70439", "71234"), ("60786",), ("67165",), ("69862",)),
        ("UPDATE lane_connectors SET entry_lane_fid = NULL WHERE fid = 60786", ("70439", "71234"), ("60786",), ("nan",), ("69862.0",)),
        ("UPDATE lane_connectors SET exit_lane_fid = NULL WHERE fid = 60786", ("70439", "71234"), (), ("67165",), ("69862",)),
        (retyped("lane_connectors", "entry_lane_fid", "REAL"), ("70439", "71234"), ("60786",), ("67165.0",), ("69862.0",)),
        (retyped("lane_connectors", "exit_lane_fid", "REAL"), ("70439", "71234"), ("60786",), ("67165",), ("69862",)),
    ],
    ids=["as it is", "no entry lane", "no exit lane", "real entry lanes", "real exit lanes"],
)  # fmt: skip
def test_successors_are_those_of_the_official_map(changed, script, after_60259, after_62990, after_60786, after_61118):
    lanes = changed(script).lanes
    assert lanes["60259"].successors == after_60259
    assert lanes["62990"].successors == after_62990
    assert lanes["60786"].successors == after_60786
    assert lanes["61118"].successors == after_61118


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
