"""Submission pickles: what is in them, where plans come from, and what stands in where there is none."""

import json
import pickle
import pickletools
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mtdrive.cli import main
from mtdrive.evaluation.planner_episodes import planner_episodes
from mtdrive.planner.answer import AnswerError, Parsed
from mtdrive.planner.log_views import view_of_frames
from mtdrive.planner.models import load_planner
from mtdrive.planner.prompt import SceneView
from mtdrive.rollout.final_plan import MISSING_IMAGE, Driver, Sight
from mtdrive.rollout.multi_turn import Task
from mtdrive.simulation.baselines import constant_velocity_plan, keep_velocity
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.agent_inputs import recorded_histories, synthetic_histories
from mtdrive.simulation.navsim_format.images import image_hash, image_path, read_image
from mtdrive.simulation.navsim_format.scene_filter import all_windows
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.submission.files import read_submission
from mtdrive.simulation.submission.pickles import KEYS_OF_VERSION, Team, write_submission
from support.planners import tiny_config

TEAM = Team("a team", "an author", "a@b.c", "an institution", "a country")
WORDS = [f"{key}={value!r}" for key, value in vars(TEAM).items()]
NAVSIM, NUPLAN = "navsim.common.dataclasses", "nuplan.planning.simulation.trajectory.trajectory_sampling"


def plans(*tokens: str) -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {token: random.normal(size=(8, 3)) for token in tokens}


@pytest.mark.parametrize("version", KEYS_OF_VERSION)
def test_a_submission_is_what_navsims_script_pickles(version, tmp_path, foreign_class):
    """The golden description: keys, classes and fields of a file by `run_create_submission_pickle.py`, read there."""
    stages = [plans("0" * 16, "f" * 16), plans("0" * 17)][: len(KEYS_OF_VERSION[version])]
    path = tmp_path / "submission.pkl"
    write_submission(path, version, TEAM, stages)
    trajectory, sampling = foreign_class(NAVSIM, "Trajectory"), foreign_class(NUPLAN, "TrajectorySampling")
    content = pickle.loads(path.read_bytes())
    about = ["team_name", "authors", "email", "institution", "country / region"]
    predictions = {
        "v1.1": ["predictions"],
        "v2.2": ["first_stage_predictions", "second_stage_predictions"],
    }[version]
    assert list(content) == [*about, *predictions]
    assert [content[key] for key in about] == list(vars(TEAM).values())
    for key, expected in zip(predictions, stages, strict=True):
        [by_token] = content[key]
        assert list(by_token) == list(expected)
        for token, item in by_token.items():
            assert type(item) is trajectory
            assert list(vars(item)) == ["poses", "trajectory_sampling"]
            assert type(item.trajectory_sampling) is sampling
            assert vars(item.trajectory_sampling) == {"num_poses": 8, "time_horizon": 4.0, "interval_length": 0.5}
            np.testing.assert_array_equal(item.poses, expected[token])
            assert item.poses.dtype == np.float64
    read = read_submission(path)
    assert read.tokens.tolist() == [token for stage in stages for token in stage]
    np.testing.assert_array_equal(read.poses, [poses for stage in stages for poses in stage.values()])


def test_a_submission_opens_with_numpy_1(tmp_path):
    """navsim pins NumPy 1.23, which knows no `numpy._core`."""
    write_submission(tmp_path / "s.pkl", "v1.1", TEAM, [plans("0" * 16)])
    data = (tmp_path / "s.pkl").read_bytes()
    texts = {argument for _, argument, _ in pickletools.genops(data) if isinstance(argument, str)}
    assert "numpy.core.multiarray" in texts
    assert not any("_core" in text or text.startswith("mtdrive.") for text in texts)


def histories(world) -> dict:
    return dict(recorded_histories(world.data_root, all_windows("test")))


def sights(world) -> list[Sight]:
    def sight(frames) -> Sight:
        path = image_path(world.data_root, "test", logs.front_camera(frames[-1]).image)
        return Sight.from_file(view_of_frames(frames, ""), path)

    return [sight(frames) for frames in histories(world).values()]


def test_a_view_of_frames_is_that_of_the_compiled_scene(world):
    store = SceneStore(world.exp_root / "scene_cache", "test")
    found = histories(world)
    assert list(found) == store.tokens
    for token, frames in found.items():
        assert len(frames) == logs.NUM_HISTORY
        ours, compiled = view_of_frames(frames, "x"), SceneView.from_scene(store.load(token), "x")
        for name, value in vars(compiled).items():
            np.testing.assert_array_equal(getattr(ours, name), value, err_msg=name)


def answering(text: str) -> Parsed:
    """Plans that differ from text to text, and no plan for a part of them."""
    number = sum(map(ord, text))
    return Parsed(None, AnswerError.NOT_CLOSED) if number % 3 == 0 else Parsed(np.full((8, 3), number * 1e-3), None)


def test_plans_are_those_of_evaluations_first_turn(world):
    planner = replace(load_planner(tiny_config(tiny={"initializer_range": 0.5})), parse_answer=answering)
    store = SceneStore(world.exp_root / "scene_cache", "test")

    def load(token: str) -> Task:
        scene = store.load(token)
        return Task.from_scene(planner, scene, read_image(world.data_root, "test", scene.camera.image))

    keys = {"turns": 1, "metric": "pdms_v1", "source": "privileged", "steps": False, "temperature": 0, "seed": 0}
    episodes = list(planner_episodes(planner, store.tokens, load, batch_size=3, **keys))
    final = Driver(planner).single_turn(sights(world))
    assert len({episode.turns[0].text for episode in episodes}) > 2
    for episode, plan in zip(episodes, final, strict=True):
        turn = episode.turns[0]
        expected = constant_velocity_plan(store.load(episode.scene_token)) if turn.poses is None else turn.poses
        np.testing.assert_array_equal(plan.poses, expected)
        assert plan.fallback == (turn.error if turn.poses is None else "")


def submit(world, out: Path, *words: str) -> tuple[int, dict]:
    status = main(["submit", "planner=tiny", *WORDS, *world.overrides(), f"out={out}", *words])
    return status, json.loads((out / "summary.json").read_text()) if status == 0 else {}


def test_submit_counts_what_constant_velocity_drives(world, tmp_path, capsys):
    status, summary = submit(world, tmp_path)
    assert status == 0
    found = histories(world)
    assert summary["scenes"] == [len(found)]
    assert summary["constant_velocity"] == dict.fromkeys(found, "missing_prefix")  # a planner that has learned nothing
    submission = read_submission(tmp_path / "submission.pkl")
    assert submission.tokens.tolist() == list(found)
    expected = [keep_velocity(view_of_frames(frames, "").velocity) for frames in found.values()]
    np.testing.assert_array_equal(submission.poses, expected)
    assert f"constant velocity drives {len(found)} of them (missing_prefix)" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_missing_image_costs_no_scene(world):
    seen = sights(world)
    blind = Sight.from_file(seen[0].view, Path("/nowhere.jpg"))
    planner = replace(load_planner(tiny_config()), parse_answer=lambda text: Parsed(np.ones((8, 3)), None))
    final = Driver(planner).single_turn([blind, *seen])
    assert [plan.fallback for plan in final] == [MISSING_IMAGE, *[""] * len(seen)]
    np.testing.assert_array_equal(final[0].poses, keep_velocity(seen[0].view.velocity))
    assert Driver(planner).single_turn([blind])[0].fallback == MISSING_IMAGE


def private_frame(frame: logs.Frame, index: int) -> dict:
    """A frame as private splits hold it."""
    unknown = {"anns", "roadblock_ids", "map_location", "traffic_lights", "log_name", "timestamp"}
    return {**{key: value for key, value in frame.items() if key not in unknown}, "frame_idx": index}


def test_private_splits_hold_neither_annotations_nor_a_future(world, tmp_path):
    """One log of many scenes of 4 or 5 frames, out of order; each frame with three before it is a scene."""
    recorded = [
        logs.read_log(logs.log_path(world.data_root, "test", n)) for n in logs.log_names(world.data_root, "test")
    ]
    private = []
    for number, frames in enumerate(recorded):
        kept = [private_frame(frame, index) for index, frame in enumerate(frames[: 4 + number % 2])]
        private += [{**frame, "scene_token": f"scene{number}"} for frame in reversed(kept)]
    folder = tmp_path / "navsim_logs" / "private_test"
    folder.mkdir(parents=True)
    (folder / "all.pkl").write_bytes(pickle.dumps(private))
    (tmp_path / "sensor_blobs").mkdir()
    (tmp_path / "sensor_blobs" / "private_test").symlink_to(world.data_root / "sensor_blobs" / "test")
    found = dict(recorded_histories(tmp_path, all_windows("private_test")))
    assert list(found) == [frame["token"] for n, frames in enumerate(recorded) for frame in frames[3 : 4 + n % 2]]
    for token, frames in histories(world).items():
        ours, compiled = view_of_frames(found[token], ""), view_of_frames(frames, "")
        np.testing.assert_array_equal(ours.history_poses, compiled.history_poses)
    words = ["split=private_test", f"openscene_data_root={tmp_path}", "nuplan_maps_root=/nowhere"]
    assert submit(world, tmp_path / "out", *words)[0] == 2  # too many images are missing
    status, summary = submit(world, tmp_path / "out", *words, "max_missing_images=0.5")
    assert status == 0
    assert summary["scenes"] == [len(found)]
    lacking_images = {token for token, why in summary["constant_velocity"].items() if why == MISSING_IMAGE}
    assert lacking_images == found.keys() - histories(world).keys()  # of the world, which has them for its scenes alone


def second_stage(frames: list[logs.Frame], token: str) -> dict:
    """Frames as a synthetic scene of navsim v2.2; a submission needs none after t0."""
    velocity, acceleration = logs.ego_dynamics(frames)
    return {
        "scene_metadata": {
            "log_name": "a",
            "map_name": "b",
            "scene_token": "f" * 17,
            "initial_token": token,
            "num_history_frames": 4,
        },
        "frames": [
            {
                "token": frame["token"],
                "timestamp": frame["timestamp"],
                "roadblock_ids": [],
                "traffic_lights": [],
                "annotations": {"boxes": [], "names": [], "velocity_3d": [], "track_tokens": []},
                "ego_status": {
                    "ego_pose": logs.ego_poses([frame])[0],
                    "ego_velocity": velocity[index],
                    "ego_acceleration": acceleration[index],
                    "driving_command": frame["driving_command"],
                },
                "camera_dict": {"cam_f0": frame["cams"]["CAM_F0"]},
            }
            for index, frame in enumerate(frames)
        ],
    }


def test_second_stages_go_by_their_initial_token(world, tmp_path):
    scenes = tmp_path / "two_stage" / "synthetic_scene_pickles"
    scenes.mkdir(parents=True)
    (recorded, *_) = histories(world).values()
    (scenes / f"{'f' * 17}.pkl").write_bytes(pickle.dumps(second_stage(recorded, "a" * 17)))
    shutil.copytree(world.data_root / "sensor_blobs" / "test", tmp_path / "two_stage" / "sensor_blobs")
    [(token, frames)] = synthetic_histories(scenes)
    assert token == "a" * 17
    np.testing.assert_allclose(
        view_of_frames(frames, "").history_poses, view_of_frames(recorded, "").history_poses, rtol=0, atol=1e-6
    )
    out = tmp_path / "out"
    status, summary = submit(world, out, "navsim=v2.2", f"synthetic_scenes={scenes}")
    assert status == 0
    assert summary["scenes"] == [len(histories(world)), 1]
    assert summary["constant_velocity"]["a" * 17] == "missing_prefix"  # it has seen the image
    assert read_submission(out / "submission.pkl").tokens[-1] == "a" * 17
    assert submit(world, out, f"synthetic_scenes={scenes}")[0] == 2  # v1.1 has one stage


def test_one_stage_of_v2_has_an_empty_second(world, tmp_path):
    assert submit(world, tmp_path, "navsim=v2.2")[1]["scenes"] == [len(histories(world)), 0]
    with pytest.raises(MTDriveError, match="no folder"):
        list(synthetic_histories(tmp_path / "nowhere"))
    (tmp_path / "broken.pkl").write_bytes(pickle.dumps({"frames": 3}))
    with pytest.raises(MTDriveError, match="no synthetic scene"):
        list(synthetic_histories(tmp_path))


def test_sights_name_their_images(world):
    for sight in sights(world):
        assert sight.image is not None
        assert sight.view.image_hash == image_hash(sight.image)
