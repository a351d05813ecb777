"""Feedback: the facts are those of the plan, the told change mends it, and `perceived` knows nothing of the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mtdrive.simulation.baselines import BASELINES, constant_velocity_plan, human_plan, pdm_closed_plan
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.paths import distances_along, shift, travel
from mtdrive.simulation.feedback.perceived import perceived_observation
from mtdrive.simulation.feedback.repair import apply_changes
from mtdrive.simulation.feedback.structured import ChangeKind
from mtdrive.simulation.feedback.text import number, render_text
from mtdrive.simulation.geometry.frames import box_corners, translate_forward
from mtdrive.simulation.scene import ObjectType
from support.scenes import RoadObject, cruise, observe, straight_scene

CENTERLINE = straight_scene().centerline
STRAIGHT = constant_velocity_plan(straight_scene(speed=8.0))
plans = st.lists(
    st.tuples(st.floats(0.0, 8.0), st.floats(-0.2, 0.2)), min_size=8, max_size=8
)  # step length [m], turn [rad]


def rolled_out(steps: list[tuple[float, float]]) -> np.ndarray:
    poses, pose = [], np.zeros(3)
    for length, turn in steps:
        pose = pose + np.array([length * np.cos(pose[2]), length * np.sin(pose[2]), turn])
        poses.append(pose)
    return np.array(poses)


@given(plans, st.floats(-60.0, 20.0), st.floats(0.0, 15.0))
def test_travel_goes_as_far_as_told_and_never_back(steps, amount, speed):
    plan = rolled_out(steps)
    changed = travel(plan, np.array([amount]), 0.5, speed, CENTERLINE)[0]
    wanted = max(distances_along(plan)[-1] + amount, 0.0)
    # The eight new poses cut the corners of the path.
    assert wanted * np.cos(0.8) - 0.01 <= distances_along(changed)[-1] <= wanted + 0.01


@given(plans)
def test_no_shift_changes_nothing(steps):
    plan = rolled_out(steps)
    np.testing.assert_array_equal(shift(plan, np.zeros(1), 2.0, 0.5)[0], plan)


def test_changes_on_a_straight_plan():
    times = np.arange(0.5, 4.5, 0.5)
    slower, stopped, farther = travel(STRAIGHT, np.array([-8.0, -24.0, 8.0]), 0.5, 8.0, CENTERLINE)
    np.testing.assert_allclose(slower[:, 0], 8.0 * times - 0.5 * times**2)
    np.testing.assert_allclose(stopped[3:, 0], 8.0)  # from 8 m/s to a stop within 8 m takes 2 s
    np.testing.assert_allclose(farther[:, 0], 8.0 * times + 0.5 * times**2)
    aside = shift(STRAIGHT, np.array([-1.5]), 2.0, 0.5)[0]
    np.testing.assert_allclose(aside[3:, 1], -1.5)
    assert aside[0, 2] < 0.0  # the car points to where it goes
    assert aside[-1, 2] == pytest.approx(0.0)


def test_beyond_its_end_a_plan_bends_like_the_road():
    angle = np.linspace(0.0, 1.5, 100)
    road = np.column_stack([60.0 * np.sin(angle), 60.0 * (1.0 - np.cos(angle)), angle])
    plan = np.column_stack([np.interp(np.arange(3.0, 25.0, 3.0), 60.0 * angle, column) for column in road.T])
    farther = travel(plan, np.array([20.0]), 0.5, 6.0, road)[0]
    assert farther[-1, 2] == pytest.approx(44.0 / 60.0, abs=0.02)
    assert np.hypot(farther[-1, 0], farther[-1, 1] - 60.0) == pytest.approx(60.0, abs=0.05)


def first(scene, plan, **options):
    return assess(scene, plan[None], **options)[0]


def test_a_clean_plan_is_called_clean():
    assessment = first(straight_scene(), STRAIGHT)
    assert assessment.clean
    assert assessment.status == "ok"
    assert render_text(assessment.feedback) == "Clean plan. PDMS +01.00."


def test_a_collision_is_told_where_and_when_and_braking_as_told_mends_it():
    scene = straight_scene([RoadObject(24.0)], speed=8.0, reference_distance=12.0)
    assessment = first(scene, STRAIGHT)
    finding = assessment.feedback.finding("no_at_fault_collisions")
    assert not finding.passed
    assert finding.object_class == "vehicle"
    assert finding.object_position == (24.0, 0.0)
    # 24 m less half the car's length and the distance from rear axle to bumper
    assert finding.time == pytest.approx((24.0 - 2.3 - 4.049) / 8.0, abs=0.15)
    assert finding.change.kind is ChangeKind.TRAVEL
    assert finding.change.amount < -15.0
    after = first(scene, apply_changes(scene, STRAIGHT, [finding.change]))
    assert after.score == pytest.approx(finding.change.score)
    assert after.scores["no_at_fault_collisions"] == 1.0
    assert after.score > assessment.score
    text = render_text(assessment.feedback)
    assert text.startswith(f"Collision at {number(finding.time)} with vehicle at +24.00, +00.00. ")
    assert f" Travel {number(finding.change.amount)} to {number(finding.change.position[0])}, +00.00 by +04.00." in text
    assert "Too close" not in text  # to what is hit
    assert text.endswith("PDMS +00.00.")


@pytest.mark.parametrize(("objects", "kind"), [([RoadObject(24.0)], "Travel"), ([RoadObject(24.0, y=-1.6)], "Shift")])
def test_steps_tell_the_changed_plan_second_by_second(objects, kind):
    scene = straight_scene(objects, speed=8.0, reference_distance=32.0 if kind == "Shift" else 12.0)
    feedback = first(scene, STRAIGHT, steps=True).feedback
    changed, last = apply_changes(scene, STRAIGHT, feedback.changes), feedback.changes[-1]
    assert [step.time for step in feedback.steps] == [1.0, 2.0, 3.0, 4.0]
    np.testing.assert_allclose([step.position for step in feedback.steps], changed[1::2, :2])
    amounts = np.array([step.amount for step in feedback.steps])
    assert amounts[int(last.time) - 1] == pytest.approx(last.amount, abs=1e-6)
    assert (np.diff(np.abs(amounts)) >= -1e-9).all()
    assert render_text(feedback).count(f"{kind} {number(amounts[0])[0]}") == 4
    assert first(scene, STRAIGHT).feedback.steps == ()


def test_too_close_to_someone_who_is_not_there_yet():
    """A pedestrian whom the log first sees 0.3 s after the plan is too close for 0.9 s of driving on."""
    scene = straight_scene([RoadObject(24.0, kind=ObjectType.PEDESTRIAN, length=0.6, width=0.6)], speed=8.0)
    log = scene.observations["pdms_v1"]
    present, poses = log.present.copy(), log.poses.copy()
    present[:18], poses[:18] = False, np.nan
    scene = replace(scene, observations={**scene.observations, "pdms_v1": replace(log, present=present, poses=poses)})
    finding = first(scene, STRAIGHT).feedback.finding("time_to_collision_within_bound")
    assert finding.time < 1.75
    assert finding.object_position == (24.0, 0.0)
    assert finding.object_class == "pedestrian"


@pytest.mark.parametrize(("offset", "side"), [(3.0, "left"), (-3.0, "right")])
def test_leaving_the_road_names_the_side_and_shifts_back(offset, side):
    scene = straight_scene()
    plan = shift(STRAIGHT, np.array([offset + np.sign(offset) * 3.5 * (offset > 0)]), 3.0, 0.5)[0]
    assessment = first(scene, plan)
    finding = assessment.feedback.finding("drivable_area_compliance")
    assert finding.side == side
    corners = box_corners(translate_forward(assessment.states[:, :3], 1.461), np.array([5.176, 2.297]))[..., 1]
    assert finding.measured == pytest.approx(max(corners.max() - 5.25, -1.75 - corners.min()))
    assert finding.change.kind is ChangeKind.SHIFT
    assert np.sign(finding.change.amount) == -np.sign(offset)
    assert finding.change in assessment.feedback.changes
    assert first(scene, apply_changes(scene, plan, [finding.change])).scores["drivable_area_compliance"] == 1.0


def test_a_slow_plan_is_told_how_much_farther_it_could_go():
    assessment = first(straight_scene(speed=8.0), cruise(20.0, 8.0)[5::5, :3])
    finding = assessment.feedback.finding("ego_progress")
    assert (finding.measured, finding.limit) == (pytest.approx(21.0, abs=0.2), pytest.approx(32.0))
    assert finding.change.kind is ChangeKind.TRAVEL
    assert finding.change.amount > 4.0
    assert finding.change.score > assessment.score


def test_discomfort_names_the_bound():
    assessment = first(straight_scene(speed=8.0), np.zeros((8, 3)))
    finding = assessment.feedback.finding("comfort")
    assert not finding.passed
    assert abs(finding.measured) > abs(finding.limit)
    assert "Too much " in render_text(assessment.feedback)


def test_following_what_is_told_gives_the_score_that_was_told_and_never_a_lower_one():
    rng = np.random.default_rng(5)
    scenes = [
        straight_scene([RoadObject(28.0, speed=2.0)], reference_distance=20.0),
        straight_scene([RoadObject(18.0, -1.6, kind=ObjectType.BARRIER), RoadObject(30.0, 3.5, np.pi, speed=6.0)]),
    ]
    helped = []
    for scene in scenes:
        plans = np.stack([rolled_out([(rng.uniform(2, 6), rng.normal(0, 0.04)) for _ in range(8)]) for _ in range(24)])
        before = assess(scene, plans)
        told = [(plan, a) for plan, a in zip(plans, before, strict=True) if a.feedback.changes]
        after = assess(scene, np.stack([apply_changes(scene, plan, a.feedback.changes) for plan, a in told]))
        for (plan, old), new in zip(told, after, strict=True):
            assert new.score == pytest.approx(old.feedback.changes[-1].score)
            assert new.score >= old.score
            for finding in old.feedback.violations:
                if finding.change is not None:
                    mended = first(scene, apply_changes(scene, plan, [finding.change])).scores
                    assert mended[finding.metric] > finding.value
        helped += [new.score > old.score + 0.02 for (_, old), new in zip(told, after, strict=True)]
        assert all(assessment.clean or assessment.feedback.violations for assessment in before)
    assert len(helped) > 30
    assert np.mean(helped) > 0.9


def test_perceived_feedback_does_not_know_the_logs_future():
    """A car ahead will brake and a pedestrian will come: only the log knows, so only privileged feedback changes."""
    scene = straight_scene([RoadObject(20.0, speed=8.0)])
    log = observe([RoadObject(20.0), RoadObject(12.0, kind=ObjectType.PEDESTRIAN)], 51)
    present = log.present.copy()
    present[:10, 1] = False
    future = {**scene.observations, "pdms_v1": replace(log, present=present)}
    surprising = replace(scene, observations=future, human_poses=np.zeros((10, 3)))
    before, after = (first(s, STRAIGHT, source="perceived") for s in (scene, surprising))
    assert before.feedback == after.feedback
    assert before.clean
    assert after.clean
    assert after.score == 0.0  # the score is the true one
    assert not first(surprising, STRAIGHT).clean


def test_perceived_feedback_does_not_forgive_what_the_recorded_human_did():
    """epdms_v2 forgives what the human fails, too; the human drives in the future."""
    scene = straight_scene([RoadObject(24.0)], reference_distance=12.0)
    crashing = replace(scene, human_poses=np.vstack([STRAIGHT, STRAIGHT[-2:]]))
    assert first(crashing, STRAIGHT, metric="epdms_v2").scores["no_at_fault_collisions"] == 1.0
    before, after = (first(s, STRAIGHT, metric="epdms_v2", source="perceived") for s in (scene, crashing))
    assert before.feedback == after.feedback
    assert not after.feedback.finding("no_at_fault_collisions").passed


def test_perceived_observation_extrapolates_agents_and_freezes_static_objects():
    objects = [RoadObject(20.0, speed=5.0, heading=np.pi / 2), RoadObject(30.0, speed=5.0, kind=ObjectType.BARRIER)]
    scene = straight_scene(objects)
    seen = perceived_observation(scene)
    expected = observe([objects[0], replace(objects[1], speed=0.0)], 51)
    np.testing.assert_allclose(seen.poses, expected.poses, atol=1e-9)
    np.testing.assert_array_equal(seen.first_speed, expected.first_speed)
    assert seen.present.all()


def test_an_invalid_plan_has_a_status_and_says_what_is_wrong():
    broken = STRAIGHT.copy()
    broken[3, 1] = np.nan
    scene = straight_scene([RoadObject(24.0)])
    good, bad = assess(scene, np.stack([STRAIGHT, broken]))
    assert good.status == "ok"
    assert bad.status == "invalid_trajectory"
    assert np.isnan(bad.score)
    assert not bad.clean
    assert render_text(bad.feedback).startswith("Invalid plan: ")
    # the neighbour in the group is judged as if alone
    assert good.feedback == first(scene, STRAIGHT).feedback


@pytest.mark.parametrize("source", ["privileged", "perceived"])
def test_without_suggestions_the_rest_of_the_feedback_is_the_same(source):
    scene = straight_scene([RoadObject(24.0)])
    full, short = (first(scene, STRAIGHT, source=source, suggest=suggest) for suggest in (True, False))
    assert full.feedback.changes
    findings = tuple(replace(finding, change=None) for finding in full.feedback.findings)
    assert short.feedback == replace(full.feedback, findings=findings, changes=())
    assert (short.score, short.scores, short.clean) == (full.score, full.scores, full.clean)


def test_without_the_human_filter_scores_and_suggestions_do_not_forgive():
    scene = straight_scene([RoadObject(24.0)], reference_distance=12.0)
    crashing = replace(scene, human_poses=np.vstack([STRAIGHT, STRAIGHT[-2:]]))
    strict = first(crashing, STRAIGHT, metric="epdms_v2", human_penalty_filter=False)
    assert strict.score == 0.0
    (change, *_) = strict.feedback.changes
    after = first(crashing, apply_changes(scene, STRAIGHT, [change]), metric="epdms_v2", human_penalty_filter=False)
    assert after.score == pytest.approx(change.score)


def test_bad_requests_are_refused():
    with pytest.raises(MTDriveError, match="guessed"):
        first(straight_scene(), STRAIGHT, source="guessed")
    with pytest.raises(MTDriveError, match=r"not \(8, 3\); give one trajectory as poses\[None\]\."):
        assess(straight_scene(), STRAIGHT)
    with pytest.raises(MTDriveError, match="plain numbers"):
        assess(straight_scene(), [["ahead"]])
    with pytest.raises(MTDriveError, match="human"):
        human_plan(replace(straight_scene(), human_poses=np.empty((0, 3))))


def test_baselines_are_plans():
    scene = straight_scene(speed=8.0, reference_distance=20.0)
    for plan in BASELINES.values():
        assert plan(scene).shape == (8, 3)
    assert pdm_closed_plan(scene)[-1, 0] == pytest.approx(20.0)


@given(st.floats(-99.99, 99.99))
def test_numbers_have_one_width_and_no_negative_zero(value):
    written = number(value)
    assert len(written) == 6
    assert float(written) == pytest.approx(value, abs=0.005001)
    assert written != "-00.00"
