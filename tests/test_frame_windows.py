"""Frame windows of navsim's filters: 8 future frames (navhard, warmup), 10 (navtrain, navtest) and 16.

Run with num_future_frames 8 and 9 on logs that end there, navsim v2.2 gives the rows of scores_v2.csv, and navsim v1.1
raises "Iteration is out of scenario".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest

from mtdrive.datasets.corrections import find_expert
from mtdrive.evaluation.rows import baseline_rows
from mtdrive.simulation.baselines import BASELINES
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.compile import compile_scene
from mtdrive.simulation.scene_cache.format import Fingerprint, load_scene, save_scene
from mtdrive.simulation.scoring import score
from mtdrive.visualization.figure import bird_view_png
from support import reference

TOKENS = sorted(set(reference.load("trajectories.npz")["token"].tolist()))
TOKEN = "6bea526590790a85"


def log_of(token: str) -> list[logs.Frame]:
    """The frames of the reference log that holds a scene."""
    for name in logs.log_names(reference.DATA_ROOT, "test"):
        frames = logs.read_log(logs.log_path(reference.DATA_ROOT, "test", name))
        if token in logs.scene_windows(frames, [token]):
            return frames
    raise AssertionError(token)


def ended(token: str, num_future: int) -> list[logs.Frame]:
    """The log up to so many frames after t0."""
    frames = log_of(token)
    now = [frame["token"] for frame in frames].index(token)
    return frames[: now + num_future + 1]


def compiled(frames: Sequence[logs.Frame]) -> Scene:
    road_map = load_map(map_path(reference.MAPS_ROOT, frames[logs.NUM_HISTORY - 1]["map_location"]))
    return compile_scene(frames, road_map, "test")


def short_scene(token: str, num_future: int) -> Scene:
    return compiled(logs.scene_windows(ended(token, num_future), [token], num_future=num_future)[token])


def leaves(node: object) -> list:
    if dataclasses.is_dataclass(node):
        return [leaf for field in dataclasses.fields(node) for leaf in leaves(getattr(node, field.name))]
    return [leaf for child in node.values() for leaf in leaves(child)] if isinstance(node, dict) else [node]


def test_windows_have_the_frames_that_a_filter_asks_for():
    frames = ended(TOKEN, 8)
    assert TOKEN not in logs.scene_windows(frames, [TOKEN])
    assert TOKEN not in logs.scene_windows(frames, [TOKEN], num_future=9)
    assert len(logs.scene_windows(frames, [TOKEN], num_future=8)[TOKEN]) == 12
    every = [frame["token"] for frame in log_of(TOKEN)[:30]]
    apart = logs.scene_windows(log_of(TOKEN)[:30], every, frame_interval=None, num_future=8)
    assert list(apart) == [every[3], every[15]]


def test_scenes_without_a_route_are_kept_where_the_filter_does():
    frames = [frame | {"roadblock_ids": []} for frame in ended(TOKEN, 10)]
    assert not logs.scene_windows(frames, [TOKEN])
    assert list(logs.scene_windows(frames, [TOKEN], has_route=False)) == [TOKEN]


@pytest.mark.parametrize("arguments", [{"num_future": 7}, {"frame_interval": 0}])
def test_windows_of_no_score_are_refused(arguments):
    with pytest.raises(MTDriveError, match=r"too few|must be at least 1"):
        logs.scene_windows([], **arguments)


@pytest.mark.parametrize("num_future", [8, 9])
@pytest.mark.parametrize("token", TOKENS)
def test_short_windows_score_as_the_official_code_does(token: str, num_future: int):
    scene = short_scene(token, num_future)
    assert len(scene.human_poses) == num_future
    table = reference.scores("v2").loc[token]
    names, poses = reference.plans(token, 8)
    for human_filter in (False, True):
        official = table[table.human_penalty_filter == human_filter].loc[names]
        scores = score(scene, poses, metric="epdms_v2", human_penalty_filter=human_filter)
        for column, values in scores.columns.items():
            np.testing.assert_allclose(values, official[column], rtol=0, atol=1e-6, err_msg=column)
        np.testing.assert_allclose(scores.score, official.final_score, rtol=0, atol=1e-6)
    with pytest.raises(MTDriveError, match=f"Scene {token} has no score pdms_v1, which needs 10 frames after t0"):
        score(scene, poses)


def test_frames_after_the_tenth_change_nothing():
    frames = ended(TOKEN, 10)[-14:]
    later = [
        frames[-1] | {"timestamp": frames[-1]["timestamp"] + 500_000 * k, "token": f"{k:016x}"} for k in range(1, 7)
    ]
    (long,) = logs.scene_windows([*frames, *later], [TOKEN], num_future=16).values()
    assert len(long) == 20
    for value, expected in zip(leaves(compiled(long)), leaves(compiled(frames)), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_all_that_uses_a_scene_copes_with_a_short_one(tmp_path):
    scene = short_scene(TOKEN, 8)
    save_scene(tmp_path / "s.scene", scene, Fingerprint(log="l", map="m"))
    scene = load_scene(tmp_path / "s.scene")
    (assessment,) = assess(scene, BASELINES["standstill"](scene)[None], metric="epdms_v2")
    assert np.isfinite([assessment.score, assessment.extended_comfort]).all()
    assert [row.status for row in baseline_rows(scene, "family", list(BASELINES), "epdms_v2")] == ["ok"] * len(
        BASELINES
    )
    assert find_expert(scene, "epdms_v2", lambda poses: poses).score > 0.0
    assert bird_view_png(scene, [], metric="epdms_v2")
