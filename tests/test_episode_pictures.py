"""Pictures of episodes: the conversation in full beside the views, and the 4 s as a moving picture."""

import math

import cv2
import numpy as np
import pytest
from PIL import Image

from mtdrive.cli import main
from mtdrive.rollout.episode import Episode, EpisodeStatus, Turn, TurnStatus
from mtdrive.rollout.episode_file import EpisodesHeader, write_episodes
from mtdrive.simulation import vehicle
from mtdrive.simulation.baselines import constant_velocity_plan
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.scene_filter import all_windows
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.visualization import figure_scene, style
from mtdrive.visualization.animation import frames, write_gif, write_mp4
from mtdrive.visualization.camera_view import camera_moment
from mtdrive.visualization.plan import pose_at
from mtdrive.visualization.records import EpisodeRecord, TurnRecord, read_evaluation
from mtdrive.visualization.turns import DrawnTurn, change, in_force, show_turns
from support.pictures import CAMERA, GREY, arc, near, scene_with
from support.scenes import RoadObject

ANSWER = "Here is the planning trajectory [PT, " + ", ".join(["(+10.00, +00.00, +00.00)"] * 8) + "]."
TOLD = "Collision at +02.70 with vehicle at +22.22, +00.00. Travel -08.00 to +10.09, +00.00 by +04.00. PDMS +00.00."
COLUMNS = {"no_at_fault_collisions": 0.0, "ego_progress": 0.93, "comfort": 1.0}


def turns(count):
    return [
        DrawnTurn(ANSWER, "ok", 0.1 * i, COLUMNS, TOLD, "#0072b2", arc(label=f"turn {i}")) for i in range(1, count + 1)
    ]


@pytest.mark.parametrize("count", [1, 3, 6])
def test_the_conversation_stands_in_full_and_nothing_overlaps(count):
    said = turns(count)
    figure = figure_scene(scene_with(), GREY, [turn.plan for turn in said], turns=said)
    figure.canvas.draw()
    left, right, column = figure.axes
    words = " ".join(text.get_text() for text in column.texts)
    assert words.count("Told: " + TOLD) == count
    assert words.count("…") == count
    for expected in ("NC", "EP", "0.93", "Turn 1", f"PDMS {0.1 * count:.2f}"):
        assert expected in words
    boxes = [text.get_window_extent() for text in column.texts]
    area = column.get_window_extent()
    assert all(
        area.x0 - 1 <= b.x0 and b.x1 <= area.x1 + 2 and area.y0 - 1 <= b.y0 and b.y1 <= area.y1 + 2 for b in boxes
    )
    for i, a in enumerate(boxes):
        for b in boxes[i + 1 :]:
            assert min(a.x1, b.x1) - max(a.x0, b.x0) < 1 or min(a.y1, b.y1) - max(a.y0, b.y0) < 2
    assert left.get_window_extent().x1 < right.get_window_extent().x0 < right.get_window_extent().x1 < area.x0


def test_the_moving_ego_lies_where_its_plan_is_in_the_camera_view():
    plan = arc(speed=8.0)
    blue = style.plan_colours([plan])[0]
    tops = []
    for step in (10, 20, 30):
        view = camera_moment(scene_with(), GREY, [plan], step, "pdms_v1", GREY.shape)
        rows, columns = np.nonzero(near(view, blue, 10))
        front = 0.8 * step + vehicle.REAR_AXLE_TO_FRONT
        expected = CAMERA.project(np.array([[front, 0.0, 0.0]]))[0][0]
        assert abs(rows.min() - expected[1]) < 4
        assert abs(columns.mean() - expected[0]) < 3
        tops.append(rows.min())
    assert tops == sorted(tops, reverse=True)


def test_a_plan_at_half_seconds_moves_as_one_at_tenths_and_stops_where_it_ends():
    fine, coarse = arc(0.02), arc(0.02)
    coarse = type(coarse)("turn 1", fine.poses[4::5])
    for step in (5, 20, 40):
        np.testing.assert_allclose(pose_at(coarse, step), pose_at(fine, step), atol=1e-9)
    broken = type(coarse)("turn 1", np.vstack([fine.poses[4:20:5], np.full((4, 3), np.nan)]))
    np.testing.assert_allclose(pose_at(broken, 20), pose_at(fine, 20), atol=1e-9)
    np.testing.assert_allclose(pose_at(broken, 40), pose_at(fine, 20), atol=1e-9)


def test_a_moving_picture_is_small_and_shows_the_violation_from_its_time_on(tmp_path):
    scene = scene_with(RoadObject(22.0))
    record = EpisodeRecord("a", scene.token, (TurnRecord(constant_velocity_plan(scene)),))
    plans = [turn.plan for turn in show_turns(scene, record, "pdms_v1", "privileged")]
    pictures = list(frames(scene, GREY, plans))
    assert len(pictures) == 21
    assert all(side % 2 == 0 for side in pictures[0].shape[:2])
    marked = [near(picture, style.VIOLATION, 20).sum() > 30 for picture in pictures]
    assert marked == [0.2 * i >= plans[0].violation.time for i in range(21)]
    write_gif(tmp_path / "a.gif", iter(pictures))
    write_mp4(tmp_path / "a.mp4", iter(pictures))
    with Image.open(tmp_path / "a.gif") as gif:
        assert gif.n_frames == 21
        assert gif.size == pictures[0].shape[1::-1]
        gif.seek(20)
        last = np.asarray(gif.convert("RGB")).astype(int)
    assert np.abs(last - pictures[-1]).mean() < 6
    assert (tmp_path / "a.gif").stat().st_size < 1_000_000
    video = cv2.VideoCapture(str(tmp_path / "a.mp4"))
    count = 0
    while video.read()[0]:
        count += 1
    assert count >= 21
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gif", "a.mp4"]


def test_texts_of_an_episode_are_drawn_as_they_stand():
    said = [DrawnTurn(r"$\nope$", "parse_error", math.nan, {}, r"Invalid: $\nope$")]
    figure_scene(scene_with(), GREY, [], r"$\nope$", turns=said).canvas.draw()


def test_an_answer_without_plan_leaves_the_one_before_in_force():
    good, silent = turns(3)[2], DrawnTurn("?", "parse_error", math.nan, {}, "Invalid plan.")
    assert in_force([silent, good, silent]) == [0.0, good.score, good.score]
    assert change([silent, good, silent]) == "gained"
    assert change([good, silent]) == "same"
    assert change([]) == "same"


@pytest.fixture
def evaluation(world, tmp_path):
    """The episodes of an evaluation, of one scene: illegible first, then at constant velocity."""
    store = SceneStore(world.exp_root / "scene_cache", "test")
    scene = store.load(store.tokens[0])
    poses, none = constant_velocity_plan(scene), np.zeros(0)
    record = EpisodeRecord("a", scene.token, (TurnRecord(poses),))
    score = show_turns(scene, record, "pdms_v1", "privileged")[0].score
    turns = (
        Turn(none, none, none, "No plan.", TurnStatus.PARSE_ERROR, 0.0, "Invalid."),
        Turn(none, none, none, ANSWER, TurnStatus.OK, score, "Travel.", poses=poses, score=score),
    )
    episode = Episode(scene.token, "0" * 32, turns, EpisodeStatus.TRUNCATED, family="cyclist")
    header = EpisodesHeader(
        "tiny", "released", all_windows("test").scene_set, "pdms_v1", 1, "privileged", False, 2, 0.0, 0, 1
    )
    write_episodes(tmp_path / "episodes.jsonl", header, [episode])
    return tmp_path, scene, score


def test_an_evaluation_reads_back_with_its_families_and_scores(evaluation):
    folder, scene, score = evaluation
    recording = read_evaluation(folder / "episodes.jsonl")
    (episode,) = recording.episodes
    assert (recording.scene_set.name, recording.source, episode.family, episode.status) == (
        "test",
        "privileged",
        "cyclist",
        "truncated",
    )
    first, second = show_turns(scene, episode, recording.metric, recording.source)
    assert (first.status, first.plan, first.columns) == ("parse_error", None, {})
    assert second.score == pytest.approx(score)
    assert second.plan.label == "turn 2"
    assert second.feedback == "Travel."


def test_a_recorded_score_that_the_cache_does_not_give_is_refused(evaluation):
    folder, scene, score = evaluation
    (episode,) = read_evaluation(folder / "episodes.jsonl").episodes
    record = TurnRecord(episode.turns[1].poses, score=score + 0.01)
    with pytest.raises(MTDriveError, match="navsim_exp_root"):
        show_turns(scene, EpisodeRecord("a", scene.token, (record,)), "pdms_v1", "privileged")


def test_visualize_draws_episodes_still_and_moving(evaluation, world, tmp_path):
    folder, scene, _ = evaluation
    arguments = ["visualize", *world.overrides(), f"episodes={folder}/episodes.jsonl", f"out={tmp_path}/out"]
    assert main(arguments) == 0
    assert cv2.imread(str(tmp_path / "out" / f"{scene.token}.png")).shape == (660, 1690, 3)
    assert main([*arguments, "format=gif"]) == 0
    assert (tmp_path / "out" / f"{scene.token}.gif").stat().st_size < 1_000_000
    assert main([*arguments, "format=html"]) == 0
    assert scene.token in (tmp_path / "out" / "viewer.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["format=svg"], "one of png, gif, mp4, html"),
        (["episodes=nowhere.jsonl"], "nowhere.jsonl"),
        (["episodes=E", "token=0123456789abcdef"], "has no scene 0123456789abcdef"),
        (["episodes=E", "trajectories=T.npz"], "not both"),
    ],
)
def test_bad_input_gets_one_sentence(evaluation, world, capsys, arguments, sentence):
    folder, _, _ = evaluation
    arguments = [argument.replace("=E", f"={folder}/episodes.jsonl") for argument in arguments]
    assert main(["visualize", *world.overrides(), f"out={folder}/out", *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert sentence in error.splitlines()[-1]
    assert "Traceback" not in error


def test_a_damaged_evaluation_is_named(evaluation):
    folder, _, _ = evaluation
    lines = (folder / "episodes.jsonl").read_text().splitlines()
    (folder / "episodes.jsonl").write_text(f'{lines[0]}\n{{"token": "x"}}\n')
    with pytest.raises(MTDriveError, match=r"episodes\.jsonl, line 2: turns is missing; run mtdrive evaluate again"):
        read_evaluation(folder / "episodes.jsonl")
