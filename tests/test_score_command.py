"""`mtdrive score` end to end on the golden data, and what it refuses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mtdrive.cli import main
from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.rollout.episode_file import EpisodesHeader, read_episodes, write_episodes
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.scene_filter import all_windows
from mtdrive.simulation.scoring import INVALID, score
from mtdrive.simulation.submission.files import read_submission
from support import reference

TOKENS = ["e1c33c4c39967974", "5118e69f55dd7a54"]
SUB_METRICS = [
    "no_at_fault_collisions",
    "drivable_area_compliance",
    "ego_progress",
    "time_to_collision_within_bound",
    "comfort",
    "driving_direction_compliance",
]


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> list[str]:
    """Where the golden data is, with a folder for the caches that the tests share."""
    return [
        f"openscene_data_root={reference.DATA_ROOT}",
        f"nuplan_maps_root={reference.MAPS_ROOT}",
        f"navsim_exp_root={tmp_path_factory.mktemp('exp')}",
        "workers=1",
    ]


def mixed_plans() -> tuple[np.ndarray, np.ndarray]:
    """Twelve golden plans of two scenes, tokens taking turns."""
    parts = [reference.plans(token, 8)[1][:6] for token in TOKENS]
    return np.array(TOKENS * 6), np.stack(parts, axis=1).reshape(12, 8, 3)


def save(path: Path, tokens: np.ndarray, poses: np.ndarray, interval: float = 0.5) -> Path:
    np.savez(path, token=tokens, poses=poses, interval_length=interval)
    return path


def run(roots: list[str], trajectories: Path, *overrides: str) -> int:
    out = trajectories.with_suffix(".csv")
    return main(["score", *roots, f"trajectories={trajectories}", f"out={out}", *overrides])


@pytest.mark.parametrize(("metric", "filtered"), [("pdms_v1", None), ("epdms_v2", None), ("epdms_v2", False)])
def test_writes_a_row_for_each_trajectory_in_order(roots, tmp_path, capsys, metric, filtered):
    tokens, poses = mixed_plans()
    path = save(tmp_path / "plans.npz", tokens, poses)
    assert run(roots, path, f"metric={metric}", *([] if filtered is None else ["human_penalty_filter=false"])) == 0

    table = pd.read_csv(path.with_suffix(".csv"))
    assert table.token.tolist() == tokens.tolist()
    assert set(table.metric) == {metric}
    assert set(table.status) == {"ok"}
    if metric == "pdms_v1":
        assert table.columns.tolist() == ["token", *SUB_METRICS, "score", "metric", "status"]
    for token in TOKENS:
        rows = np.flatnonzero(tokens == token)
        expected = score(reference.scenes()[token], poses[rows], 0.5, metric, filtered)
        np.testing.assert_allclose(table.score[rows], expected.score, rtol=0, atol=1e-12)
        for column, values in expected.columns.items():
            np.testing.assert_allclose(table[column][rows], values, rtol=0, atol=1e-12)

    made = json.loads(path.with_suffix(".json").read_text())
    assert (made["metric"], made["traffic"], made["status"]) == (metric, "log_replay", {"ok": 12})
    assert made["human_penalty_filter"] == (metric == "epdms_v2" and filtered is None)
    assert sorted(made["scenes"]) == sorted(TOKENS)
    assert made["mean"]["score"] == pytest.approx(table.score.mean())
    assert f"{table.score.mean():.4f}" in capsys.readouterr().out


def test_invalid_rows_stay_empty_and_are_counted(roots, tmp_path, capsys):
    tokens, poses = mixed_plans()
    poses[[2, 5], 3, 0] = np.nan
    path = save(tmp_path / "plans.npz", tokens, poses)
    assert run(roots, path) == 0
    table = pd.read_csv(path.with_suffix(".csv"))
    assert np.flatnonzero(table.status == INVALID).tolist() == [2, 5]
    assert table.loc[[2, 5], [*SUB_METRICS, "score"]].isna().all(axis=None)
    assert table.drop([2, 5])[[*SUB_METRICS, "score"]].notna().all(axis=None)
    assert json.loads(path.with_suffix(".json").read_text())["mean"]["score"] == pytest.approx(table.score.mean())
    official_table = pd.read_csv(path.with_suffix(".navsim.csv"), index_col=0)
    assert official_table.columns.tolist() == ["token", "valid", *SUB_METRICS, "score"]
    assert np.flatnonzero(~official_table.valid).tolist() == [2, 5, 12]
    assert official_table.token[12] == "average"
    assert official_table.score[12] == pytest.approx(table.score.mean())
    printed = capsys.readouterr().out
    assert "10 ok rows" in printed
    assert f"2 rows without a score: {INVALID}" in printed


NEIGHBOURS = ["5118e69f55dd7a54", "6bea526590790a85"]  # 0.5 s apart; TOKENS[0] is of another log


@pytest.mark.parametrize("human_filter", [False, True])
@pytest.mark.parametrize("name", ["human", "const_velocity"])
def test_neighbours_get_extended_comfort(roots, tmp_path, capsys, name, human_filter):
    tokens = np.array([TOKENS[0], *NEIGHBOURS[::-1]])
    poses = np.stack([plans[names == name][0] for names, plans in (reference.plans(token, 8) for token in tokens)])
    path = save(tmp_path / "plans.npz", tokens, poses)
    assert run(roots, path, "metric=epdms_v2", f"human_penalty_filter={str(human_filter).lower()}") == 0
    table = pd.read_csv(path.with_suffix(".csv"))
    assert table.token.tolist() == tokens.tolist()

    pairs = pd.read_csv(reference.FOLDER / "extended_comfort_v2.csv")
    official = pairs[(pairs.now_traj == name) & (pairs.prev_traj == name)].iloc[0]
    comfort = [np.nan, official.two_frame_extended_comfort, np.nan]
    np.testing.assert_array_equal(table.two_frame_extended_comfort, comfort)
    expected = [official[f"now_score_hf{int(human_filter)}"], official[f"prev_score_hf{int(human_filter)}"]]
    np.testing.assert_allclose(table.score[1:], expected, rtol=0, atol=1e-9)

    assert "two-frame extended comfort in 1 of 3 scores" in capsys.readouterr().out
    made = json.loads(path.with_suffix(".json").read_text())
    assert made["extended_comfort_rows"] == 1
    assert (made["rows"]["score"], made["rows"]["two_frame_extended_comfort"]) == (3, 1)

    official_table = pd.read_csv(path.with_suffix(".navsim.csv"), index_col=0)
    sub_metrics = [name for name in table.columns if name not in ("token", "score", "metric", "status")]
    assert official_table.columns.tolist() == ["token", "valid", *sub_metrics, "score"]
    assert official_table.token.tolist() == [*tokens, "average_all_frames"]
    assert official_table.valid.all()
    pd.testing.assert_frame_equal(official_table[:3][sub_metrics], table[sub_metrics])
    np.testing.assert_allclose(official_table.score[3], table.score.mean())


def forgiven_plan() -> tuple[str, np.ndarray]:
    """A scene whose recorded human fails a sub-metric, and a plan (8, 3) that fails it as well."""
    for token, scene in reference.scenes().items():
        for poses in reference.plans(token, 8)[1]:
            on, off = (score(scene, poses[None], 0.5, "epdms_v2", human).score[0] for human in (True, False))
            if on > off:
                return token, poses
    raise AssertionError("no plan of the golden data is forgiven anything")


def test_all_definitions_of_a_score_in_one_command(roots, tmp_path, capsys):
    """Before the fix of the human filter it changed the columns, and the score was that without it."""
    token, forgiven = forgiven_plan()
    tokens, poses = mixed_plans()
    path = save(tmp_path / "plans.npz", np.append(tokens, token), np.concatenate([poses, forgiven[None]]))
    for name, keys in {
        "on": ["metric=epdms_v2"],
        "off": ["metric=epdms_v2", "human_penalty_filter=false"],
        "v1": ["metric=pdms_v1"],
        "all": ["metric=all"],
    }.items():
        assert run(roots, path, *keys, f"out={tmp_path / name}.csv") == 0
    printed = capsys.readouterr().out.splitlines()
    assert any("pdms_v1" in line and "epdms_v2_before_fix" in line for line in printed)
    names = ("pdms_v1", "epdms_v2", "epdms_v2_before_fix")
    v1, fixed, before = (pd.read_csv(tmp_path / f"all.{name}.csv") for name in names)
    on, off = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("on", "off"))
    pd.testing.assert_frame_equal(v1, pd.read_csv(tmp_path / "v1.csv"))
    pd.testing.assert_frame_equal(fixed, on)
    pd.testing.assert_frame_equal(before.drop(columns=["score", "metric"]), on.drop(columns=["score", "metric"]))
    pd.testing.assert_series_equal(before.score, off.score)
    assert (before.score < fixed.score).any()
    assert set(before.metric) == {"epdms_v2_before_fix"}

    means = pd.read_csv(tmp_path / "all.csv", index_col="mean")
    assert tuple(means.columns) == names
    assert means.loc["score"].tolist() == pytest.approx([table.score.mean() for table in (v1, fixed, before)])
    assert np.isnan(means.loc["comfort", "epdms_v2"])  # no number of one definition stands in a column of another
    assert means.loc["rows with a score"].tolist() == [13] * 3
    made = json.loads((tmp_path / "all.epdms_v2_before_fix.json").read_text())
    assert (made["definition"], made["human_penalty_filter"]) == ("epdms_v2_before_fix", False)


def test_what_makes_no_sense_with_all_is_refused(roots, tmp_path, capsys):
    path = save(tmp_path / "plans.npz", *mixed_plans())
    for overrides, words in (
        (["metric=all", "human_penalty_filter=true"], "leave it out"),
        (["metric=all", "explain=0"], "one metric and one turn"),
        (["turns=all"], "has no turns"),
    ):
        assert words in refusal(capsys, run(roots, path, *overrides))


@pytest.fixture
def episodes(tmp_path) -> Path:
    """An evaluation's episodes: one with two plans, one whose first answer does not parse, and one without any plan."""
    nothing = np.zeros(0)
    plans = {token: list(reference.plans(token, 8)[1][:2]) for token in (*TOKENS, NEIGHBOURS[1])}
    plans[TOKENS[1]][0] = None
    plans[NEIGHBOURS[1]] = [None, None]

    def turn(token: str, poses: np.ndarray | None) -> Turn:
        if poses is None:
            return Turn(nothing, nothing, nothing, "?", TurnStatus.PARSE_ERROR, 0.0, "", "no trajectory")
        value = float(score(reference.scenes()[token], poses[None]).score[0])
        return Turn(nothing, nothing, nothing, "[PT]", TurnStatus.OK, 0.0, "", poses=poses, score=value)

    scenes = all_windows("test").scene_set
    header = EpisodesHeader("p", "compact", scenes, "pdms_v1", 1, "privileged", False, 2, 0.0, 0, len(plans))
    made = [
        Episode(token, "0" * 32, tuple(turn(token, poses) for poses in turns), EpisodeStatus.TRUNCATED)
        for token, turns in plans.items()
    ]
    write_episodes(tmp_path / "episodes.jsonl", header, made)
    return tmp_path / "episodes.jsonl"


def test_stored_episodes_are_scored_again_by_any_metric(roots, tmp_path, episodes, capsys):
    _, stored = read_episodes(episodes)
    for turns in ("last", "all"):
        assert run(roots, episodes, "metric=all", f"turns={turns}", f"out={tmp_path / turns}.csv") == 0
    last = pd.read_csv(tmp_path / "last.pdms_v1.csv")
    assert last.token.tolist() == [episode.scene_token for episode in stored]
    assert last.status.tolist() == ["ok", "ok", "no_plan"]
    assert last.score[:2].tolist() == pytest.approx([episode.turns[1].score for episode in stored[:2]], abs=1e-12)
    first = pd.read_csv(tmp_path / "all.turn_1.pdms_v1.csv")
    assert first.status.tolist() == ["ok", "no_plan", "no_plan"]
    assert first.score[0] == pytest.approx(stored[0].turns[0].score, abs=1e-12)
    for name in ("pdms_v1", "epdms_v2", "epdms_v2_before_fix"):
        after = pd.read_csv(tmp_path / f"all.turn_2.{name}.csv")
        pd.testing.assert_frame_equal(after, pd.read_csv(tmp_path / f"last.{name}.csv"))
    means = pd.read_csv(tmp_path / "last.csv", index_col="mean")
    assert means.loc["rows with a score", "pdms_v1"] == 2
    assert means.loc["score, 0 without a plan", "pdms_v1"] == pytest.approx(last.score.sum() / 3)
    assert "1 rows without a score: no_plan" in capsys.readouterr().out
    assert run(roots, episodes, "split=val") == 2
    assert "split=test; they cannot be scored on split=val" in capsys.readouterr().err


def test_repeated_tokens_have_no_extended_comfort(roots, tmp_path):
    tokens = np.array([*NEIGHBOURS, NEIGHBOURS[0]])
    poses = np.concatenate([reference.plans(token, 8)[1][:1] for token in tokens])
    path = save(tmp_path / "plans.npz", tokens, poses)
    assert run(roots, path, "metric=epdms_v2") == 0
    table = pd.read_csv(path.with_suffix(".csv"))
    assert table.two_frame_extended_comfort.isna().all()
    alone = [
        score(reference.scenes()[token], pose[None], 0.5, "epdms_v2").score[0] for token, pose in zip(tokens, poses)
    ]
    np.testing.assert_allclose(table.score, alone, rtol=0, atol=1e-12)


def submission(predictions: object) -> dict[str, object]:
    """What navsim's run_create_submission_pickle.py dumps."""
    return {"team_name": "t", "authors": "a", "email": "e", "institution": "i", "predictions": predictions}


@pytest.fixture
def navsim_trajectory(foreign_class):
    """A maker of the Trajectory objects that submissions hold."""
    trajectory = foreign_class("navsim.common.dataclasses", "Trajectory")
    module = "nuplan.planning.simulation.trajectory.trajectory_sampling"
    sampling = foreign_class(module, "TrajectorySampling")

    def make(poses: np.ndarray, interval: float = 0.5):
        sampled = sampling(num_poses=len(poses), time_horizon=4.0, interval_length=interval)
        return trajectory(poses=poses, trajectory_sampling=sampled)

    return make


def test_navsim_submission_pickle(roots, tmp_path, navsim_trajectory):
    plans = {token: reference.plans(token, 8)[1][0].astype(np.float32) for token in TOKENS}
    path = tmp_path / "submission.pkl"
    predictions = {token: navsim_trajectory(poses) for token, poses in plans.items()}
    path.write_bytes(pickle.dumps(submission([predictions])))
    assert run(roots, path) == 0
    table = pd.read_csv(path.with_suffix(".csv")).set_index("token")
    for token, poses in plans.items():
        assert table.score[token] == pytest.approx(score(reference.scenes()[token], poses[None]).score[0], abs=1e-12)


def test_submissions_of_both_stages_and_csv(tmp_path, navsim_trajectory):
    plans = {"a" * 16: np.arange(24.0).reshape(8, 3), "b" * 17: -np.arange(24.0).reshape(8, 3)}
    stages = [{token: navsim_trajectory(poses)} for token, poses in plans.items()]
    content = {"team_name": "t", "first_stage_predictions": stages[:1], "second_stage_predictions": stages[1:]}
    (tmp_path / "submission.pkl").write_bytes(pickle.dumps(content))
    columns = [f"{name}_{k}" for k in range(8) for name in ("x", "y", "heading")]
    table = pd.DataFrame([poses.ravel() for poses in plans.values()], columns=columns)
    table.insert(0, "token", list(plans))
    table.to_csv(tmp_path / "plans.csv", index=False)
    for path in (tmp_path / "submission.pkl", tmp_path / "plans.csv"):
        read = read_submission(path)
        assert read.tokens.tolist() == list(plans)
        np.testing.assert_array_equal(read.poses, list(plans.values()))
        assert read.interval == 0.5


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "columns token, x_0"),
        ("token,x_0,y_0,heading_0\n", "no trajectory"),
        ("token,x_0,y_0,heading_0\na,1,2,3\n", "(1, 1, 3)"),
        ("token,x_0,y_0,heading_0\na,1,2\n", "Cannot read"),
        ("token,x_0,y_0,heading_0\na,1,2,left\n", "left"),
        ("token,x_0,heading_0,y_0\na,1,2,3\n", "in this order"),
    ],
)
def test_refuses_csv(tmp_path, content, words):
    path = tmp_path / "plans.csv"
    path.write_text(content)
    with pytest.raises(MTDriveError, match=r"plans\.csv.*\.$") as refused:
        read_submission(path)
    assert words in str(refused.value)


def test_refuses_half_a_submission(tmp_path, navsim_trajectory):
    stage = [{TOKENS[0]: navsim_trajectory(np.zeros((8, 3)))}]
    for content, words in (
        ({"first_stage_predictions": stage}, "second_stage_predictions"),
        ({"first_stage_predictions": stage, "second_stage_predictions": stage}, "both stages"),
    ):
        path = tmp_path / "submission.pkl"
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(MTDriveError, match=words):
            read_submission(path)


def refusal(capsys, status: int) -> str:
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert status == 2
    assert error.startswith("mtdrive score: ")
    assert error.endswith(".")
    return error


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["metric=pdms"], "pdms_v1"),
        (["human_penalty_filter=true"], "no human penalty filter"),
        (["human_penalty_filter=maybe"], "human_penalty_filter=maybe"),
        (["traffic=idm"], "pdms_v1 has no reactive traffic"),
        (["traffic=smart"], "traffic=smart must be one of log_replay, idm"),
        (["out=scores.txt"], ".csv"),
        (["openscene_data_root=null"], "openscene_data_root"),
        (["openscene_data_root=/nowhere"], "/nowhere"),
        (["nuplan_maps_root=null"], "nuplan_maps_root"),
        (["split=navtest"], "navtest"),
        (["trajectories=missing.npz"], "missing.npz"),
    ],
)
def test_refuses_values(roots, tmp_path, capsys, overrides, words):
    path = save(tmp_path / "plans.npz", *mixed_plans())
    assert words in refusal(capsys, run(roots, path, *overrides))
    assert not path.with_suffix(".csv").exists()


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"poses": np.zeros((2, 8, 3))}, "token"),
        ({"token": np.array(TOKENS), "interval_length": 0.5}, "poses"),
        ({"token": np.array(TOKENS), "poses": np.zeros((3, 8, 3)), "interval_length": 0.5}, "2 tokens"),
        ({"token": np.array(TOKENS), "poses": np.zeros((2, 6, 3)), "interval_length": 0.5}, "(2, 6, 3)"),
        ({"token": np.array(TOKENS), "poses": np.zeros((2, 8, 3)), "interval_length": 0.1}, "0.1 s"),
        ({"token": np.array(TOKENS), "poses": np.zeros((2, 8, 3)), "interval_length": [0.5, 0.5]}, "one number"),
        ({"token": np.arange(2), "poses": np.zeros((2, 8, 3)), "interval_length": 0.5}, "strings"),
        ({"token": np.array([], "<U16"), "poses": np.zeros((0, 8, 3)), "interval_length": 0.5}, "no trajectory"),
        ({"token": np.array(["f" * 16] * 2), "poses": np.zeros((2, 8, 3)), "interval_length": 0.5}, "f" * 16),
    ],
)
def test_refuses_arrays(roots, tmp_path, capsys, arrays, words):
    path = tmp_path / "plans.npz"
    np.savez(path, **arrays)
    assert words in refusal(capsys, run(roots, path))


NOT_PLAIN = [complex, bool, str, "datetime64[s]", "timedelta64[s]", [("x", float)]]


@pytest.mark.parametrize("kind", NOT_PLAIN)
def test_refuses_poses_that_are_no_plain_numbers(tmp_path, navsim_trajectory, kind):
    poses = np.ones((8, 3), dtype=np.int64).astype(kind)
    np.savez(tmp_path / "plans.npz", token=np.array(TOKENS[:1]), poses=poses[None], interval_length=0.5)
    (tmp_path / "plans.pkl").write_bytes(pickle.dumps({"predictions": [{TOKENS[0]: navsim_trajectory(poses)}]}))
    for path in (tmp_path / "plans.npz", tmp_path / "plans.pkl"):
        with pytest.raises(MTDriveError, match=rf"{path.name}.* (plain numbers|no plain array|only a forged one does)"):
            read_submission(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 truncated", b"\x93NUMPY garbage", pickle.dumps([1])])
def test_refuses_damaged_npz(roots, tmp_path, capsys, content):
    path = tmp_path / "plans.npz"
    path.write_bytes(content)
    assert "plans.npz" in refusal(capsys, run(roots, path))


@pytest.mark.parametrize(
    ("predictions", "words"),
    [
        (None, "predictions"),
        ([{}], "no trajectory"),
        ([{TOKENS[0]: 1}], "Trajectory"),
        ([{}, {}], "2 sets"),
        ([{TOKENS[0]: ((8, 3), 0.5), TOKENS[1]: ((40, 3), 0.1)}], "one shape"),
        ([{TOKENS[0]: ((8, 3), 0.5), TOKENS[1]: ((8, 3), 0.4)}], "0.4 and 0.5"),
        ([{TOKENS[0]: ((8, 2), 0.5)}], "(1, 8, 2)"),
    ],
)
def test_refuses_submissions(roots, tmp_path, capsys, navsim_trajectory, predictions, words):
    path = tmp_path / "submission.pkl"
    if isinstance(predictions, list):
        for by_token in predictions:
            for token, item in by_token.items():
                by_token[token] = navsim_trajectory(np.zeros(item[0]), item[1]) if isinstance(item, tuple) else item
    path.write_bytes(pickle.dumps(submission(predictions)))
    assert words in refusal(capsys, run(roots, path))


def test_refuses_a_pickle_that_would_run_code(roots, tmp_path, capsys):
    path = tmp_path / "submission.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    assert "os.system" in refusal(capsys, run(roots, path))
