"""Feedback: the facts are those of the plan, the told change mends it, and `perceived` knows nothing of the future."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from factories import RoadObject, cruise, observe, straight_scene
from hypothesis import given
from hypothesis import strategies as st

from mtdrive.simulation.assessment import assess
from mtdrive.simulation.baselines import BASELINES, constant_velocity_plan, human_plan, pdm_closed_plan
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.perceived import perceived_observation
from mtdrive.simulation.feedback.repair import apply, shift, travel, travelled
from mtdrive.simulation.feedback.structured import Change, ChangeKind
from mtdrive.simulation.feedback.text import number, render_text
from mtdrive.simulation.scene import ObjectType

STRAIGHT = constant_velocity_plan(straight_scene(speed=8.0))
plans = st.lists(
    st.tuples(st.floats(0.0, 8.0), st.floats(-0.2, 0.2)), min_size=8, max_size=8
)  # step length [m], turn [rad]


def rolled_out(steps: list[tuple[float, float]]) -> np.ndarray:
    poses, pose = [], np.zeros(3)
    for length, turn in steps:
        pose = pose + [length * np.cos(pose[2]), length * np.sin(pose[2]), turn]
        poses.append(pose)
    return np.array(poses)


@given(plans, st.floats(-60.0, 20.0))
def test_travel_changes_the_distance_by_what_is_told_and_never_reverses(steps, amount):
    plan = rolled_out(steps)
    changed = travel(plan, np.array([amount]), 0.5)[0]
    distance = travelled(plan)[-1]
    # Chords cut the corners of the polyline, so a curved plan may come out a little shorter.
    expected = max(distance + amount, 0.0)
    assert travelled(changed)[-1] <= expected + 1e-2
    assert travelled(changed)[-1] >= expected * np.cos(1.6) ** 2 - 1e-2 if amount < 0 else expected - 3.0


@given(plans)
def test_no_change_changes_nothing(steps):
    plan = rolled_out(steps)
    np.testing.assert_allclose(travel(plan, np.zeros(1), 0.5)[0][:, :2], plan[:, :2], atol=2e-3)
    np.testing.assert_array_equal(shift(plan, np.zeros(1), 2.0, 0.5)[0], plan)


def test_changes_on_a_straight_plan():
    braked = apply(STRAIGHT, Change(ChangeKind.TRAVEL, -8.0, 4.0, 0.0))
    np.testing.assert_allclose(braked[:, 0], STRAIGHT[:, 0] - 0.5 * np.arange(0.5, 4.5, 0.5) ** 2)
    stopped = apply(STRAIGHT, Change(ChangeKind.TRAVEL, -24.0, 4.0, 0.0))
    assert stopped[-1, 0] == pytest.approx(8.0)
    assert np.diff(stopped[:, 0]).min() >= 0.0
    aside = apply(STRAIGHT, Change(ChangeKind.SHIFT, -1.5, 2.0, 0.0))
    np.testing.assert_allclose(aside[3:, 1], -1.5)
    assert aside[0, 2] < 0.0  # the car points to where it goes
    assert aside[-1, 2] == pytest.approx(0.0)


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
    after = first(scene, apply(STRAIGHT, finding.change))
    assert after.score == pytest.approx(finding.change.score)
    assert after.scores["no_at_fault_collisions"] == 1.0
    assert after.score > assessment.score
    text = render_text(assessment.feedback)
    assert text.startswith(f"Collision at {number(finding.time)} with vehicle at +24.00, +00.00. Travel -")
    assert text.endswith("PDMS +00.00.")


@pytest.mark.parametrize(("offset", "side"), [(3.0, "left"), (-3.0, "right")])
def test_leaving_the_road_names_the_side_and_shifts_back(offset, side):
    scene = straight_scene()
    plan = shift(STRAIGHT, np.array([offset + np.sign(offset) * 3.5 * (offset > 0)]), 3.0, 0.5)[0]
    assessment = first(scene, plan)
    finding = assessment.feedback.finding("drivable_area_compliance")
    assert finding.side == side
    assert finding.measured == pytest.approx(abs(plan[-1, 1]) + 2.297 / 2 - (1.75 if offset < 0 else 5.25), abs=0.25)
    assert finding.change.kind is ChangeKind.SHIFT
    assert np.sign(finding.change.amount) == -np.sign(offset)
    assert first(scene, apply(plan, finding.change)).scores["drivable_area_compliance"] == 1.0


def test_a_slow_plan_is_told_how_much_farther_it_could_go():
    assessment = first(straight_scene(speed=8.0), cruise(20.0, 8.0)[5::5, :3])
    finding = assessment.feedback.finding("ego_progress")
    assert (finding.measured, finding.limit) == (pytest.approx(20.0, abs=0.5), pytest.approx(32.0))
    assert finding.change.kind is ChangeKind.TRAVEL
    assert finding.change.amount > 4.0
    assert finding.change.score > assessment.score


def test_discomfort_names_the_bound():
    assessment = first(straight_scene(speed=8.0), cruise(8.0, 8.0)[5::5, :3] * [0.6, 1, 1])
    finding = assessment.feedback.finding("comfort")
    assert not finding.passed
    assert abs(finding.measured) > abs(finding.limit)
    assert "Too much " in render_text(assessment.feedback)


def test_perceived_feedback_does_not_know_the_logs_future():
    """A car ahead that will brake: only the log knows, so only privileged feedback changes with it."""
    scene = straight_scene([RoadObject(20.0, speed=8.0)])
    log = scene.observations["pdms_v1"]
    poses = log.poses.copy()
    poses[1:] = poses[0]
    future = replace(log, poses=poses)
    braking = replace(scene, observations={**scene.observations, "pdms_v1": future}, human_poses=np.zeros((10, 3)))
    before, after = (first(s, STRAIGHT, source="perceived") for s in (scene, braking))
    assert before.feedback == after.feedback
    assert before.clean and after.clean
    assert after.score == 0.0  # the score is the true one
    assert not first(braking, STRAIGHT).clean


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


def test_bad_requests_are_refused():
    with pytest.raises(MTDriveError, match="guessed"):
        first(straight_scene(), STRAIGHT, source="guessed")
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
