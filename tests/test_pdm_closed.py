"""PDM-Closed against what the official code (v1.1) planned in the same scenes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from mtdrive.simulation import vehicle
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import points_to_global, translate_forward
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.logs import NUM_HISTORY
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.pdm_closed.centerline import centerline, starting_lane
from mtdrive.simulation.pdm_closed.forecast import forecast
from mtdrive.simulation.pdm_closed.path import Path as LanePath
from mtdrive.simulation.pdm_closed.path import interpolate_path
from mtdrive.simulation.pdm_closed.proposals import propose
from mtdrive.simulation.pdm_closed.route import correct_route, route_lanes
from mtdrive.simulation.scene_cache.compile import compile_scene
from mtdrive.simulation.scene_cache.drivable import map_window

REFERENCE = Path(__file__).parent / "data/navsim_reference"
DATA = REFERENCE / "dataset"
OFFICIAL = np.load(REFERENCE / "intermediates_v1.npz")
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
    for case in json.loads((REFERENCE / "routes_v1.json").read_text()):
        road_map, ego_pose = map_of(case["map"]), np.array(case["ego_pose"])
        route = correct_route(road_map, case["roadblock_ids"], ego_pose)
        assert route == case["corrected"]
        lanes = route_lanes(road_map, route)
        window = map_window(road_map, translate_forward(ego_pose, vehicle.REAR_AXLE_TO_CENTER))
        path = centerline(road_map, route, lanes, starting_lane(road_map, window.at(ego_pose), lanes, ego_pose))
        assert np.isclose(path.progress[-1], case["centerline_length"])
        assert np.allclose(path.states[0, :2], case["centerline_start"])
        assert np.allclose(path.states[-1, :2], case["centerline_end"])


def test_a_route_that_the_map_does_not_know_is_named():
    with pytest.raises(MTDriveError, match="has no roadblock 999999"):
        correct_route(map_of("us-ma-boston"), ["999999"], np.zeros(3))


def test_a_path_is_followed_by_distance_and_never_left():
    corner = LanePath.through(np.array([[0.0, 0.0, 0.0], [10.0, 0.0, np.pi / 2], [10.0, 10.0, np.pi / 2]]))
    assert np.allclose(interpolate_path(corner.states, corner.progress, 15.0), [10.0, 5.0, np.pi / 2])
    assert np.allclose(interpolate_path(corner.states, corner.progress, 5.0), [5.0, 0.0, np.pi / 4])
    assert np.allclose(interpolate_path(corner.states, corner.progress, 99.0), [10.0, 10.0, np.pi / 2])
    assert np.allclose(corner.offset(1.0).states[0, :2], [0.0, 1.0])  # positive is left
    assert np.allclose(corner.stretch(2.0, 3.0).bounds, [2.0, 0.0, 3.0, 0.0])
