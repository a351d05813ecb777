"""Reactive traffic against the official one, and its geometry against GEOS."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import poses_to_global
from mtdrive.simulation.scene import STEP, IdmPaths, Scene
from mtdrive.simulation.scoring import prepare, score
from mtdrive.simulation.traffic.reactive import simulate_tracks
from mtdrive.simulation.traffic.search_tree import first_nearest
from mtdrive.simulation.traffic.strips import bounds_of, distance_between, fill_strip, path_sides
from support import reference
from support.scenes import RoadObject, cruise, straight_scene

TOKENS = sorted(set(reference.load("trajectories.npz")["token"].tolist()))


def vehicle_poses(scene: Scene, states: np.ndarray) -> dict[str, np.ndarray]:
    """(41, 3) UTM box centres of the vehicles around one simulated plan, NaN where there are none."""
    tracks = next(simulate_tracks(prepare(scene, "epdms_v2", "idm").traffic, states[None]))
    x, y, cos, sin = np.moveaxis(tracks.poses, -1, 0)
    poses = poses_to_global(np.stack([x, y, np.arctan2(sin, cos)], axis=-1), scene.origin)
    poses[~tracks.present] = np.nan
    observation = scene.observations["epdms_v2"]
    return {str(observation.tokens[a]): poses[a] for a in np.flatnonzero(observation.kind == 0)}


@pytest.mark.parametrize("human_filter", [False, True])
@pytest.mark.parametrize("token", TOKENS)
def test_scores_equal_official(token: str, human_filter: bool):
    table = reference.scores("v2_idm").loc[token]
    names, poses = reference.plans(token, 8)
    official = table[table.human_penalty_filter == human_filter].loc[names]
    scores = score(reference.scenes()[token], poses, 0.5, "epdms_v2", human_filter, "idm")
    for column, values in scores.columns.items():
        tolerance = 1e-6 if column == "ego_progress" else 0.0
        np.testing.assert_allclose(values, official[column], rtol=0, atol=tolerance, err_msg=f"{column} of {names}")
    np.testing.assert_allclose(scores.score, official.score, rtol=0, atol=1e-6)


def test_crowded_scenes_equal_official():
    """Vehicles everywhere: in bends, across each other, beside the lanes, on top of each other and of the ego."""
    golden = reference.load("crowded.npz")
    scenes = reference.scenes("crowded", "crowded.npz")
    for row, token in enumerate(golden["token"]):
        scene = scenes[str(token)]
        scores = score(scene, golden["poses"][row : row + 1], 0.5, "epdms_v2", False, "idm")
        values = [*(column[0] for column in scores.columns.values()), scores.score[0]]
        np.testing.assert_allclose(values, golden["scores"][row], rtol=0, atol=1e-6)
        ours = vehicle_poses(scene, scores.events["states"][0])
        official = dict(
            zip(golden["vehicle"][golden["row"] == row], golden["track"][golden["row"] == row], strict=True)
        )
        for vehicle, poses in ours.items():
            expected = official.get(vehicle, np.full((40, 3), np.nan))
            np.testing.assert_allclose(poses[1:, :2], expected[:, :2], rtol=0, atol=0.02, err_msg=vehicle)
        assert official.keys() <= ours.keys()


def on_rails(scene: Scene, speeds: list[float]) -> Scene:
    """The first objects of a straight scene as vehicles on the ego's lane."""
    count = len(speeds)
    x = np.arange(-60.0, 160.0)
    path = np.column_stack([x + 60.0, x, np.zeros_like(x), np.zeros_like(x)])
    path[:, 1:3] = poses_to_global(np.column_stack([path[:, 1:3], path[:, 3]]), scene.origin)[:, :2]
    path[:, 3] = scene.origin[2]
    idm_paths = IdmPaths(
        track=np.arange(count),
        pose=poses_to_global(scene.current_boxes[:count, :3], scene.origin),
        progress=scene.current_boxes[:count, 0] + 60.0,
        speed=np.array(speeds),
        target_speed=np.full(count, 10.0),
        lane=np.zeros(count, dtype=np.int64),
        path=path,
        path_start=np.array([0, len(path)]),
        parked=np.empty(0, dtype=np.int64),
    )
    return replace(scene, idm_paths=idm_paths)


def test_a_vehicle_brakes_for_the_ego_and_the_log_does_not():
    behind = RoadObject(x=-20.0, speed=9.0)
    scene = on_rails(straight_scene([behind], speed=4.0), [9.0])
    tracks = next(simulate_tracks(prepare(scene, "epdms_v2", "idm").traffic, cruise(8.0, 4.0)[None]))
    assert tracks.poses[0, 0, 0] == -20.0
    way = np.diff(tracks.poses[0, :, 0])
    assert way[0] == pytest.approx(9.0 * STEP)
    assert way[-1] < 3.0 * STEP
    recorded = scene.observations["epdms_v2"].poses[:, 0, 0]
    assert recorded[-1] > tracks.poses[0, -1, 0] + 10.0


@pytest.mark.parametrize("objects", [[], [RoadObject(x=30.0, y=8.0)]])
def test_scenes_without_reactive_vehicles(objects: list[RoadObject]):
    """The vehicle beside the road follows no path and not parked: it is gone, and nothing else changes."""
    scene = straight_scene(objects)
    plans = scene.human_poses[None, :8]
    assert score(scene, plans, 0.5, "epdms_v2", None, "idm").score == score(scene, plans, 0.5, "epdms_v2").score
    assert score(scene, plans[:0], 0.5, "epdms_v2", None, "idm").score.shape == (0,)


@pytest.mark.parametrize(
    ("metric", "traffic", "words"),
    [("pdms_v1", "idm", "no reactive traffic"), ("epdms_v2", "smart", "log_replay or idm")],
)
def test_refuses_in_one_sentence(metric: str, traffic: str, words: str):
    scene = straight_scene()
    with pytest.raises(MTDriveError, match=words):
        score(scene, scene.human_poses[None, :8], 0.5, metric, None, traffic)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80))
def test_the_search_tree_is_that_of_geos(seed: int, count: int):
    random = np.random.default_rng(seed)
    center, reach = random.uniform(0, 60, (count, 2)), random.uniform(0.5, 12, (count, 2))
    bounds = np.column_stack([center - reach, center + reach])
    boxes, target = shapely.box(*bounds.T), np.array([25.0, 25.0, 35.0, 35.0])
    distances = shapely.distance(boxes, shapely.box(*target))
    assert first_nearest(bounds, distances, target) == shapely.STRtree(boxes).nearest(shapely.box(*target))


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_strips_are_the_buffers_of_geos(seed: int):
    """Within 1 cm, on bends of at least 8 m with points up to 1 m apart; GEOS spoils ends that are close to a point."""
    random = np.random.default_rng(seed)
    steps = random.uniform(0.5, 1.0, 40)
    heading = np.cumsum(steps * random.uniform(-1 / 8, 1 / 8))
    xy = np.cumsum(steps[:, None] * np.column_stack([np.cos(heading), np.sin(heading)]), axis=0)
    line = shapely.LineString(xy)
    path = np.column_stack([np.append(0.0, np.cumsum(np.hypot(*np.diff(xy, axis=0).T))), xy])
    start, end = np.sort(random.uniform(0, path[-1, 0], 2))
    if end - start < 0.5:
        return
    quads = np.empty((len(path) + 1, 4, 2))
    count = fill_strip(path, path_sides(path, 1.0), 1.0, start, end, quads)
    official = shapely.ops.substring(line, start, end).buffer(1.0, cap_style="flat")
    strip = shapely.union_all(shapely.polygons(quads[:count]))
    apart = np.abs(path[:, :1] - [start, end]).min()
    assert shapely.hausdorff_distance(strip, official) < (0.011 if apart > 0.1 else 0.07)

    box = shapely.box(*(xy[20] + [3.0, -1.0]), *(xy[20] + [6.0, 1.0]))
    quad = shapely.get_coordinates(box)[:4][None]
    distance = distance_between(quads[:count], bounds(quads[:count]), quad, bounds(quad), bounds(quad)[0])
    assert distance == pytest.approx(strip.distance(box), abs=1e-9)


def bounds(quads: np.ndarray) -> np.ndarray:
    out = np.empty((len(quads), 4))
    for quad, row in zip(quads, out, strict=True):
        bounds_of(quad, row)
    return out
