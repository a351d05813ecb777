"""PDM-Closed against what the official code (v1.1) planned in the same scenes."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import points_to_global, translate_forward
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.logs import NUM_HISTORY, Detections
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.navsim_format.road_map import Area, Geometries, Lane, Roadblock, RoadMap
from mtdrive.simulation.pdm_closed.centerline import centerline, starting_lane
from mtdrive.simulation.pdm_closed.forecast import forecast
from mtdrive.simulation.pdm_closed.path import Path as LanePath
from mtdrive.simulation.pdm_closed.path import interpolate_path
from mtdrive.simulation.pdm_closed.proposals import propose
from mtdrive.simulation.pdm_closed.route import correct_route, route_lanes
from mtdrive.simulation.scene import ObjectType
from mtdrive.simulation.scene_cache.compile import compile_scene
from mtdrive.simulation.scene_cache.drivable import map_window
from support import reference

DATA = reference.DATA_ROOT
OFFICIAL = np.load(reference.FOLDER / "intermediates_v1.npz")
TOKENS = sorted({key.split("/")[0] for key in OFFICIAL.files})


@cache
def windows() -> dict:
    return {
        token: frames
        for split in ("test", "disturbed")
        for name in logs.log_names(DATA, split)
        for token, frames in logs.scene_windows(logs.read_log(logs.log_path(DATA, split, name)), TOKENS).items()
    }


def map_of(location: str):
    return load_map(map_path(DATA / "maps", location))


@pytest.mark.parametrize("token", TOKENS)
def test_the_plan_is_the_official_one(token):
    frames = windows()[token]
    scene = compile_scene(frames, map_of(frames[0]["map_location"]), "test")
    reference = scene.references["pdms_v1"]
    assert np.allclose(reference.proposal_scores, OFFICIAL[f"{token}/proposal_scores"], atol=1e-7)
    for ours, key in ((reference.states, "pdm_states"), (reference.simulated, "pdm_simulated")):
        official = OFFICIAL[f"{token}/{key}"]
        assert np.allclose(points_to_global(ours[:, :2], scene.origin), official[:, :2], rtol=0, atol=1e-7)
        turn = ours[:, 2] + scene.origin[2] - official[:, 2]
        assert np.allclose(np.angle(np.exp(1j * turn)), 0.0, atol=1e-7)
    assert np.allclose(reference.simulated[:, 3:], OFFICIAL[f"{token}/pdm_simulated"][:, 3:], atol=1e-6)


@pytest.mark.parametrize("token", TOKENS)
def test_leaders_and_ignored_objects_are_the_official_ones(token):
    now = windows()[token][NUM_HISTORY - 1]
    road_map, ego = map_of(now["map_location"]), OFFICIAL[f"{token}/ego"]
    route = correct_route(road_map, now["roadblock_ids"], ego[:3])
    lanes = route_lanes(road_map, route)
    window = map_window(road_map, translate_forward(ego[:3], vehicle.REAR_AXLE_TO_CENTER))
    start = starting_lane(road_map, window.at(ego), lanes, ego[:3])
    polygons = {lane: road_map.lanes[lane].polygon for lane in lanes}
    expected = forecast(logs.detections(now), ego[:3], logs.red_lights(now), polygons)
    path = centerline(road_map, route, lanes, start)
    proposals = propose(path, start.speed_limit, ego[:3], ego[3], expected)
    assert np.allclose(proposals.leaders, OFFICIAL[f"{token}/leaders"], atol=1e-7)
    names = [*expected.tokens, *(f"red_light_{id_}" for id_ in expected.lights)]
    ignored = [name for name, is_ignored in zip(names, expected.ignored, strict=True) if is_ignored]
    assert sorted(ignored) == sorted(OFFICIAL[f"{token}/ignored"])


def test_routes_are_corrected_as_officially():
    """Disturbed routes: off-route starts behind and ahead of the route, missing links, loops, far-off blocks."""
    for case in json.loads((reference.FOLDER / "routes_v1.json").read_text()):
        road_map, ego_pose = map_of(case["map"]), np.array(case["ego_pose"])
        route = correct_route(road_map, case["roadblock_ids"], ego_pose)
        assert route == case["corrected"]
        if "centerline" not in case:
            continue
        lanes = route_lanes(road_map, route)
        window = map_window(road_map, translate_forward(ego_pose, vehicle.REAR_AXLE_TO_CENTER))
        path = centerline(road_map, route, lanes, starting_lane(road_map, window.at(ego_pose), lanes, ego_pose))
        assert np.isclose(path.progress[-1], case["centerline"]["length"])
        assert np.allclose(path.states[[0, -1], :2], [case["centerline"]["start"], case["centerline"]["end"]])


def _road(num_blocks: int) -> RoadMap:
    """Blocks of 10 m along x, "0" to "n - 1", odd ones connectors, each with the lane "lane<block>"."""
    names = [str(k) for k in range(num_blocks)]
    squares = np.array([shapely.box(10 * k, -2, 10 * k + 10, 2) for k in range(num_blocks)], dtype=object)
    lines = [shapely.LineString([(10 * k, 0), (10 * k + 10, 0)]) for k in range(num_blocks)]
    following = [*((name,) for name in names[1:]), ()]
    leading = [(), *((name,) for name in names[:-1])]
    return RoadMap(
        location="straight",
        lanes={
            f"lane{k}": Lane(f"lane{k}", k, square, (line,), None, tuple(f"lane{next_}" for next_ in successors))
            for k, square, line, successors in zip(names, squares, lines, following, strict=True)
        },
        roadblocks={
            k: Roadblock(k, square, int(k) % 2 == 1, (f"lane{k}",), before, after)
            for k, square, before, after in zip(names, squares, leading, following, strict=True)
        },
        lane_area=Area(names[::2], Geometries(squares[::2])),
        lane_connector_area=Area(names[1::2], Geometries(squares[1::2])),
        roadblock_area=Area(names[::2], Geometries(squares[::2])),
        connector_area=Area(names[1::2], Geometries(squares[1::2])),
        intersection_area=Area([], Geometries(np.array([], dtype=object))),
        carpark_area=Area([], Geometries(np.array([], dtype=object))),
        without_geometry={},
    )


def test_a_route_is_joined_from_at_most_30_blocks_away():
    road_map, ego_pose = _road(40), np.array([5.0, 0.0, 0.0])
    assert correct_route(road_map, ["29", "31"], ego_pose) == [str(k) for k in range(32)]
    assert correct_route(road_map, ["30", "31"], ego_pose) == ["30", "31"]


def test_the_centerline_ends_where_the_lanes_do():
    road_map = _road(6)
    lanes = ["lane0", "lane1", "lane2", "lane4", "lane5"]  # lane3 is missing: the target cannot be reached
    path = centerline(road_map, [str(k) for k in range(6)], lanes, road_map.lanes["lane0"])
    assert np.allclose(path.states[-1], [30.0, 0.0, 0.0])
    path = centerline(_road(60), [str(k) for k in range(60)], list(_road(60).lanes), _road(60).lanes["lane2"])
    assert np.allclose(path.states[[0, -1], 0], [20.0, 320.0])  # 30 blocks on


def test_the_starting_lane_has_the_ego_heading_else_holds_its_centre_else_is_nearest():
    road_map, ego_pose = _road(3), np.array([5.0, 0.0, 0.1])
    crossing = Lane("crossing", "0", shapely.box(0, -9, 10, 9), (shapely.LineString([(5, -9), (5, 9)]),), None, ())
    road_map.lanes["crossing"] = crossing
    under_ego, route = ["crossing", "unknown", "lane0"], ["crossing", "lane0", "lane1", "lane2"]
    assert starting_lane(road_map, under_ego, route, ego_pose).id == "lane0"
    assert starting_lane(road_map, under_ego, route, np.array([5.0, 0.0, 1.6])).id == "crossing"
    assert starting_lane(road_map, [], ["lane2", "lane0"], ego_pose).id == "lane0"
    assert starting_lane(road_map, [], ["lane0", "lane2"], np.array([50.0, 0.0, 0.0])).id == "lane2"
    with pytest.raises(MTDriveError, match="no lane in map straight"):
        starting_lane(road_map, [], [], ego_pose)


def test_a_route_that_the_map_does_not_know_is_named():
    with pytest.raises(MTDriveError, match="has no roadblock 999999"):
        correct_route(map_of("us-ma-boston"), ["999999"], np.zeros(3))


def test_a_path_is_followed_by_distance_and_never_left():
    corner = LanePath.through(np.array([[0.0, 0.0, 0.0], [10.0, 0.0, np.pi / 2], [10.0, 10.0, np.pi / 2]]))
    assert np.allclose(interpolate_path(corner.states, corner.progress, 15.0), [10.0, 5.0, np.pi / 2])
    assert np.allclose(interpolate_path(corner.states, corner.progress, 5.0), [5.0, 0.0, np.pi / 4])
    assert np.allclose(interpolate_path(corner.states, corner.progress, 99.0), [10.0, 10.0, np.pi / 2])
    assert np.allclose(corner.offset(1.0).states[0, :2], [0.0, 1.0])  # positive is left
    assert np.allclose(corner.section(2.0, 3.0).bounds, [2.0, 0.0, 3.0, 0.0])


def _detections(rows: list[tuple]) -> Detections:
    """Rows: token, kind, x, y, heading, vx, vy; boxes of 4 m by 2 m."""
    rows = sorted(rows, key=lambda row: row[1])
    return Detections(
        tokens=[row[0] for row in rows],
        kind=np.array([row[1] for row in rows], dtype=np.int8),
        boxes=np.array([[*row[2:5], 4.0, 2.0] for row in rows]).reshape(-1, 5),
        velocity=np.array([row[5:] for row in rows]).reshape(-1, 2),
    )


def test_the_forecast_moves_agents_along_their_heading_every_second_step():
    rows = [
        ("reversing", ObjectType.VEHICLE, 20.0, 0.0, 0.1, -5.0, 0.0),
        ("cone", ObjectType.TRAFFIC_CONE, 9.0, 9.0, 0.0, 0.0, 0.0),
        ("far", ObjectType.VEHICLE, 102.0, 0.0, 0.0, 0.0, 0.0),
    ]
    expected = forecast(_detections(rows), np.zeros(3), [], {})
    assert expected.tokens == ["cone", "reversing"]  # 102 m from the rear axle is 100.5 m from the centre
    seen = expected.observation(np.zeros(3))
    assert np.allclose(seen.poses[[0, 1], 1], [20.0, 0.0, 0.1])
    assert np.allclose(seen.poses[[2, 3], 1, :2], [20.0 - np.cos(0.1), -np.sin(0.1)])
    assert np.allclose(seen.poses[:, 0], [9.0, 9.0, 0.0])
    assert np.allclose(seen.first_speed, [0.0, 5.0])


def test_the_forecast_keeps_the_nearest_objects():
    rows = [(f"v{k}", ObjectType.VEHICLE, 90.0 - k, 0.0, 0.0, 0.0, 0.0) for k in range(60)]
    assert forecast(_detections(rows), np.zeros(3), [], {}).tokens == [f"v{k}" for k in range(59, 9, -1)]


def test_a_red_light_is_ignored_only_from_inside():
    lights = {
        "around": shapely.box(-9, -9, 9, 9),
        "ahead": shapely.box(3, -3, 20, 3),
        "elsewhere": shapely.box(50, 0, 60, 9),
    }
    expected = forecast(_detections([]), np.zeros(3), ["ahead", "around", "off-route"], lights)
    assert expected.lights == ["ahead", "around"]
    assert expected.ignored.tolist() == [False, True]
