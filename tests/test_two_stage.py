"""Two-stage aggregation against the official table; synthetic scenes against the recorded ones they are made of."""

from __future__ import annotations

import pickle
from dataclasses import replace
from enum import Enum, IntEnum
from pathlib import Path, PosixPath

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mtdrive.cli import main
from mtdrive.evaluation.official_tables import two_stage_table
from mtdrive.simulation.dynamics.state import ACCELERATION_X, ACCELERATION_Y, HEADING
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import poses_to_global, rotate
from mtdrive.simulation.metrics.extended_comfort import EXTENDED_COMFORT, differences
from mtdrive.simulation.metrics.registry import final_score, metrics_of
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.navsim_format.synthetic_scenes import read_synthetic_scene
from mtdrive.simulation.scene import ObjectType
from mtdrive.simulation.scene_cache.compile import compile_scene
from mtdrive.simulation.scoring import INVALID, OK, score
from mtdrive.simulation.submission.mapping import read_mapping
from mtdrive.simulation.submission.scoring import DrivenTrajectories, SubmissionScores
from mtdrive.simulation.submission.two_stage import Group, aggregate, kernel_weights
from support import reference

GOLDEN = reference.load("two_stage_v2.npz")
OFFICIAL = pd.read_csv(reference.FOLDER / "two_stage_v2.csv", index_col=0)
NAMES = [metric.column for metric in metrics_of("epdms_v2")]


def golden_scores() -> SubmissionScores:
    """The frames as official navsim scored them, before it aggregated them."""
    states = np.zeros((len(GOLDEN["token"]), 41, 11))
    states[..., [HEADING, ACCELERATION_X, ACCELERATION_Y]] = GOLDEN["motion"]
    columns = dict(zip(NAMES, GOLDEN["columns"].T, strict=True))
    return SubmissionScores(
        metric="epdms_v2",
        tokens=GOLDEN["token"],
        status=np.full(len(states), OK, dtype="<U32"),
        columns=columns,
        score=final_score("epdms_v2", columns),
        fingerprints={},
        driven=DrivenTrajectories(GOLDEN["log_name"], GOLDEN["time"], GOLDEN["start"], GOLDEN["end"], states),
    )


def golden_groups() -> list[Group]:
    groups: dict[str, list[tuple[str, str]]] = {}
    for group, now, previous in GOLDEN["pairs"].tolist():
        groups.setdefault(group, []).append((now, previous))
    return [Group(*first, tuple(second)) for first, *second in groups.values()]


def reordered(scores: SubmissionScores, order: np.ndarray) -> SubmissionScores:
    """The rows of scores in another order."""
    drives = scores.driven
    return replace(
        scores,
        tokens=scores.tokens[order],
        status=scores.status[order],
        columns={name: values[order] for name, values in scores.columns.items()},
        score=scores.score[order],
        driven=DrivenTrajectories(
            drives.log_names[order],
            drives.times[order],
            drives.starts[order],
            drives.ends[order],
            drives.states[order],
        ),
    )


def test_equals_official():
    result = aggregate(golden_scores(), golden_groups())
    np.testing.assert_allclose(result.weights, GOLDEN["weight"], rtol=0, atol=1e-12)
    ours, official = two_stage_table(result), OFFICIAL
    assert ours.columns.tolist() == official.columns.tolist()
    assert ours.token[-3:].tolist() == official.token[-3:].tolist()
    ours, official = ours.set_index("token").astype(float), official.set_index("token").astype(float)
    pd.testing.assert_frame_equal(ours, official.loc[ours.index], rtol=0, atol=1e-12)
    # the golden frames show both values, near and far scenes
    assert set(result.frames.columns[EXTENDED_COMFORT]) == {0.0, 1.0}
    assert len(set(result.weights.round(3)) - {1.0, 0.333, 0.5, 0.25}) > 2


def test_differences_equal_official():
    drives, row_of = golden_scores().driven, {token: row for row, token in enumerate(GOLDEN["token"].tolist())}
    now, previous = np.array([[row_of[token] for token in pair] for _, *pair in GOLDEN["pairs"].tolist()]).T
    apart = differences(drives.states[now], drives.states[previous], drives.times[now] - drives.times[previous])
    np.testing.assert_allclose(apart, GOLDEN["apart"], rtol=0, atol=1e-9)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_order_and_place_do_not_matter(seed: int):
    random = np.random.default_rng(seed)
    scores, groups = golden_scores(), golden_groups()
    expected = aggregate(scores, groups)
    order = random.permutation(len(scores.tokens))
    shift = random.normal(scale=100.0, size=2)
    moved = replace(scores, driven=replace(scores.driven, starts=GOLDEN["start"] + shift, ends=GOLDEN["end"] + shift))
    groups = [
        replace(
            groups[i],
            second_stage=tuple(groups[i].second_stage[k] for k in random.permutation(len(groups[i].second_stage))),
        )
        for i in random.permutation(len(groups))
    ]
    result = aggregate(reordered(moved, order), groups)
    np.testing.assert_allclose(result.weights, expected.weights[order], rtol=0, atol=1e-6)
    assert result.combined == pytest.approx(expected.combined, abs=1e-6)
    for ours, theirs in ((result.stage_one, expected.stage_one), (result.stage_two, expected.stage_two)):
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_kernel_weights():
    starts = np.array([[0.0, 0.0], [0.3, 0.0], [0.0, 0.6]])
    kernel = np.exp([0.0, -0.09 / 0.2, -0.36 / 0.2])
    np.testing.assert_allclose(kernel_weights(np.zeros(2), starts), kernel / kernel.sum())
    np.testing.assert_allclose(kernel_weights(np.array([50.0, 0.0]), starts), 1 / 3)  # none is near


def first(groups: list[Group], **changes) -> list[Group]:
    return [replace(groups[0], **changes), *groups[1:]]


@pytest.mark.parametrize(
    ("change_scores", "change_groups", "words"),
    [
        (lambda s: replace(s, metric="pdms_v1"), None, "epdms_v2"),
        (lambda s: replace(s, driven=None), None, "more than once"),
        (lambda s: replace(s, status=np.array([INVALID, *s.status[1:]])), None, "1 have none"),
        (lambda s: reordered(s, np.arange(1, 24)), None, "no trajectory: " + GOLDEN["token"][0]),
        (None, lambda g: g[1:], "not in the mapping"),
        (None, lambda g: first(g, second_stage=()), "no second stage"),
        (None, lambda g: first(g, second_stage=(*g[0].second_stage, *g[1].second_stage)), "more than once"),
        (None, lambda g: first(g, now=g[0].previous, previous=g[0].now), "just before"),
    ],
)
def test_refuses_what_cannot_be_aggregated(change_scores, change_groups, words):
    scores, groups = golden_scores(), golden_groups()
    scores = change_scores(scores) if change_scores else scores
    groups = change_groups(groups) if change_groups else groups
    with pytest.raises(MTDriveError, match=r"\.$") as refusal:
        aggregate(scores, groups)
    assert words in str(refusal.value)


def test_groups_without_a_trajectory_are_left_out():
    scores, groups = golden_scores(), golden_groups()
    rows = np.flatnonzero(np.isin(scores.tokens, [token for pair in groups[0].pairs for token in pair]))
    result = aggregate(reordered(scores, rows), groups)
    assert result.combined == aggregate(reordered(scores, rows), groups[:1]).combined


def test_tokens_of_a_mapping_that_look_like_numbers_are_texts(tmp_path):
    path = tmp_path / "split.yaml"
    path.write_text("reactive_all_mapping: [[0012345678901234, 1e10000000000000, [[12345678901234567, 1_0]]]]")
    (group,) = read_mapping(path)
    assert group == Group("0012345678901234", "1e10000000000000", (("12345678901234567", "1_0"),))


@pytest.mark.parametrize(
    "content", ["", "data_split: test", "reactive_all_mapping: [[a, b]]", "reactive_all_mapping: [[a, b, [[c]]]]", "[{"]
)
def test_refuses_mappings(tmp_path, content):
    path = tmp_path / "split.yaml"
    path.write_text(content)
    with pytest.raises(MTDriveError, match="reactive_all_mapping"):
        read_mapping(path)
    with pytest.raises(MTDriveError, match=r"missing\.yaml"):
        read_mapping(tmp_path / "missing.yaml")


class NuPlan:
    """Classes under nuPlan's names, with the fields that nuPlan's have."""

    def __init__(self, foreign_class) -> None:
        state, maps = "nuplan.common.actor_state", "nuplan.common.maps.maps_datatypes"
        self.se2 = foreign_class(f"{state}.state_representation", "StateSE2", slots=("x", "y", "heading"))
        self.vector = foreign_class(f"{state}.state_representation", "StateVector2D", slots=("_x", "_y", "_array"))
        self.box = foreign_class(f"{state}.oriented_box", "OrientedBox")
        self.metadata = foreign_class(f"{state}.scene_object", "SceneObjectMetadata")
        self.agent = foreign_class(f"{state}.agent", "Agent")
        self.static = foreign_class(f"{state}.static_object", "StaticObject")
        self.objects = foreign_class(f"{state}.tracked_objects", "TrackedObjects")
        self.tracks = foreign_class("nuplan.planning.simulation.observation.observation_type", "DetectionsTracks")
        self.kind = foreign_class(
            f"{state}.tracked_objects_types", "TrackedObjectType", Enum, [k.name for k in ObjectType]
        )
        self.colour = foreign_class(maps, "TrafficLightStatusType", IntEnum, ["GREEN", "YELLOW", "RED"])
        self.light = foreign_class(maps, "TrafficLightStatusData")
        self.lights = foreign_class(maps, "TrafficLightStatuses")

    def detections(self, frame: logs.Frame):
        """The objects of a log's frame as nuPlan has them, in the map's frame."""
        seen, ego = logs.detections(frame), logs.ego_poses([frame])[0]
        objects = []
        for index, (x, y, heading) in enumerate(poses_to_global(seen.boxes[:, :3], ego)):
            length, width = seen.boxes[index, 3:]
            box = self.box(_center=self.se2(x=x, y=y, heading=heading), _length=length, _width=width, _height=1.5)
            kind = self.kind(int(seen.kind[index]))
            fields = {
                "_metadata": self.metadata(timestamp_us=frame["timestamp"], token="", track_token=seen.tokens[index]),
                "_tracked_object_type": kind,
                "_box": box,
            }
            vx, vy = rotate(seen.velocity[index], ego[2])
            velocity = self.vector(_x=vx, _y=vy, _array=np.array([vx, vy]))
            agent = seen.kind[index] <= ObjectType.BICYCLE
            objects.append(self.agent(_velocity=velocity, **fields) if agent else self.static(**fields))
        return self.tracks(tracked_objects=self.objects(tracked_objects=objects))

    def traffic_lights(self, frame: logs.Frame):
        return self.lights(
            traffic_lights=[
                self.light(status=self.colour.RED if red else self.colour.GREEN, lane_connector_id=id_, timestamp=0)
                for id_, red in frame["traffic_lights"]
            ]
        )


def synthetic(nuplan: NuPlan, frames: list[logs.Frame], token: str, stored: int) -> dict[str, object]:
    """A recorded window as a synthetic scene, of which `stored` frames are frames and the rest nuPlan objects."""
    velocity, acceleration = logs.ego_dynamics(frames)
    return {
        "scene_metadata": {
            "log_name": frames[3]["log_name"],
            "scene_token": token,
            "map_name": frames[3]["map_location"],
            "initial_token": token,
            "num_history_frames": 4,
            "num_future_frames": stored - 4,
        },
        "frames": [
            {
                "token": token if index == 3 else frame["token"],
                "timestamp": frame["timestamp"],
                "roadblock_ids": frame["roadblock_ids"],
                "traffic_lights": frame["traffic_lights"],
                "annotations": {
                    "boxes": frame["anns"]["gt_boxes"],
                    "names": frame["anns"]["gt_names"],
                    "velocity_3d": frame["anns"]["gt_velocity_3d"],
                    "instance_tokens": frame["anns"]["track_tokens"],
                    "track_tokens": frame["anns"]["track_tokens"],
                },
                "ego_status": {
                    "ego_pose": logs.ego_poses([frame])[0],
                    "ego_velocity": velocity[index].astype(np.float32),
                    "ego_acceleration": acceleration[index].astype(np.float32),
                    "driving_command": frame["driving_command"],
                    "in_global_frame": True,
                },
                "lidar_path": PosixPath("a.pcd"),
                "camera_dict": {"cam_f0": {}},
            }
            for index, frame in enumerate(frames[:stored])
        ],
        "extended_traffic_light_data": [nuplan.traffic_lights(frame) for frame in frames[stored:12]],
        "extended_detections_tracks": [nuplan.detections(frame) for frame in frames[stored:12]],
    }


def window(token: str) -> list[logs.Frame]:
    for name in logs.log_names(reference.DATA_ROOT, "test"):
        frames = logs.read_log(logs.log_path(reference.DATA_ROOT, "test", name))
        if found := logs.scene_windows(frames, {token}):
            return list(found[token])
    raise KeyError(token)


@pytest.fixture
def nuplan(foreign_class) -> NuPlan:
    return NuPlan(foreign_class)


@pytest.mark.parametrize("stored", [4, 7, 12])
@pytest.mark.parametrize("token", ["e61617c4709ad4f6", "3295c50926deaa2a"])  # red lights; tracks that come and go
def test_synthetic_scene_is_the_recorded_one_without_its_driver(tmp_path, nuplan, token, stored):
    frames, name = window(token), "f" * 17
    path = tmp_path / f"{name}.pkl"
    path.write_bytes(pickle.dumps(synthetic(nuplan, frames, name, stored)))
    road_map = load_map(map_path(reference.MAPS_ROOT, frames[3]["map_location"]))
    scene, recorded = compile_scene(read_synthetic_scene(path), road_map, "synthetic"), reference.scenes()[token]

    assert scene.token == name
    assert len(scene.human_poses) == 0
    assert list(scene.observations) == list(scene.references) == ["epdms_v2"]
    ours, theirs = scene.observations["epdms_v2"], recorded.observations["epdms_v2"]
    for field in ("tokens", "kind", "present", "light_ids", "light_red", "ignored"):
        np.testing.assert_array_equal(getattr(ours, field), getattr(theirs, field), err_msg=field)
    for field in ("size", "first_heading", "first_speed", "poses"):
        np.testing.assert_allclose(getattr(ours, field), getattr(theirs, field), atol=1e-6, err_msg=field)
    plans = reference.plans(token, 8)[1]
    ours, theirs = (score(each, plans, 0.5, "epdms_v2", False) for each in (scene, recorded))
    np.testing.assert_allclose(ours.score, theirs.score, rtol=0, atol=1e-6)
    with pytest.raises(MTDriveError, match="pdms_v1"):
        score(scene, plans, 0.5, "pdms_v1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda scene: scene["extended_detections_tracks"].pop(), "7 after it"),
        (lambda scene: scene.pop("frames"), "frames"),
        (lambda scene: scene["frames"][0].pop("ego_status"), "ego_status"),
        (lambda scene: scene["scene_metadata"].update(num_history_frames=3), "3 frames up to t0"),
        (lambda scene: scene.update(extended_detections_tracks=[1]), "no synthetic scene"),
        (lambda scene: scene.update(extra=Path.exists), "no part of a synthetic scene"),
    ],
)
def test_refuses_synthetic_scenes(tmp_path, nuplan, change, words):
    scene = synthetic(nuplan, window("3295c50926deaa2a"), "f" * 17, 4)
    change(scene)
    path = tmp_path / "scene.pkl"
    path.write_bytes(pickle.dumps(scene))
    with pytest.raises(MTDriveError, match=r"scene\.pkl.*\.$") as refusal:
        read_synthetic_scene(path)
    assert words in str(refusal.value)


def test_score_command_in_two_stages(tmp_path, nuplan, capsys):
    """A second stage that starts where the first does, driven the same way, says the same but for the human filter."""
    now, previous = "6bea526590790a85", "5118e69f55dd7a54"
    second = {token: token + "0" for token in (now, previous)}
    for token, name in second.items():
        # navsim calls the files of second-stage scenes by other tokens than the scenes
        (tmp_path / f"{name[::-1]}.pkl").write_bytes(pickle.dumps(synthetic(nuplan, window(token), name, 4)))
    mapping = {"reactive_all_mapping": [[now, previous, [[second[now], second[previous]]]]]}
    (tmp_path / "split.yaml").write_text(yaml.safe_dump(mapping))
    tokens = [second[now], previous, now, second[previous]]
    poses = [reference.plans(token[:16], 8)[1][4] for token in tokens]
    np.savez(tmp_path / "plans.npz", token=np.array(tokens), poses=np.stack(poses), interval_length=0.5)
    arguments = [
        "score",
        f"openscene_data_root={reference.DATA_ROOT}",
        f"nuplan_maps_root={reference.MAPS_ROOT}",
        f"navsim_exp_root={tmp_path}",
        f"trajectories={tmp_path / 'plans.npz'}",
        f"out={tmp_path / 'scores.csv'}",
        "metric=epdms_v2",
        "human_penalty_filter=false",
        "workers=1",
    ]
    assert main(arguments) == 2
    assert "synthetic_scenes=" in capsys.readouterr().err

    arguments += [f"synthetic_scenes={tmp_path}", f"mapping={tmp_path / 'split.yaml'}", f"explain={second[now]}"]
    assert main(arguments) == 0
    table = pd.read_csv(tmp_path / "scores.csv", dtype={"token": str}).set_index("token")
    assert table.index.tolist() == tokens
    assert (table.weight == 1.0).all()
    for token, name in second.items():
        assert table.score[name] == pytest.approx(table.score[token], abs=1e-6)
    combined = (table.score[now] ** 2 + table.score[previous] ** 2) / 2
    official = pd.read_csv(tmp_path / "scores.navsim.csv", dtype={"token": str}).set_index("token")
    assert official.score["extended_pdm_score_combined"] == pytest.approx(combined, abs=1e-6)
    assert f"{combined:.4f}" in capsys.readouterr().out
    assert (tmp_path / "scores.0.png").exists()

    np.savez(tmp_path / "plans.npz", token=np.array(["e" * 17]), poses=np.stack(poses[:1]), interval_length=0.5)
    assert main(arguments[:-1]) == 2
    assert "e" * 17 in capsys.readouterr().err
