"""The gymnasium contract of the closed loop."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from mtdrive.simulation.baselines import constant_velocity_plan, standstill_plan
from mtdrive.simulation.environment import SceneEnvironment
from mtdrive.simulation.errors import MTDriveError
from support.scenes import RoadObject, cruise, straight_scene

IMAGE = np.zeros((36, 64, 3), np.uint8)


def blocked():
    return straight_scene([RoadObject(24.0)], speed=8.0, reference_distance=12.0)


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized:UserWarning")
@pytest.mark.parametrize("source", ["privileged", "perceived"])
def test_gymnasium_accepts_the_environment(source):
    check_env(SceneEnvironment(blocked(), IMAGE, source=source), skip_render_check=True)


def test_a_turn_gives_reward_scores_and_feedback_until_the_plan_is_clean():
    scene = blocked()
    environment = SceneEnvironment(scene, IMAGE, max_turns=3)
    observation, _ = environment.reset(seed=0)
    assert observation["feedback"] == ""
    observation, reward, terminated, truncated, info = environment.step(constant_velocity_plan(scene))
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert observation in environment.observation_space
    assert observation["feedback"].startswith("Collision")
    assert info["scores"]["no_at_fault_collisions"] == 0.0
    _, reward, terminated, truncated, info = environment.step(cruise(12.0, 8.0)[5::5, :3])
    assert reward > 0.9
    assert (terminated, truncated) == (True, False)
    assert info["turn"] == 2


def test_turns_run_out():
    environment = SceneEnvironment(straight_scene(), IMAGE, max_turns=2)
    environment.reset()
    plan = standstill_plan(environment.scene)
    assert environment.step(plan)[2:4] == (False, False)
    assert environment.step(plan)[2:4] == (False, True)
    environment.reset()
    environment.step(plan)
    assert environment.step(constant_velocity_plan(environment.scene))[2:4] == (True, False)


def test_an_action_that_is_no_trajectory_is_refused():
    environment = SceneEnvironment(straight_scene(), IMAGE)
    environment.reset()
    with pytest.raises(MTDriveError, match="action"):
        environment.step(np.full((8, 3), np.nan))
    with pytest.raises(MTDriveError, match="action"):
        environment.step(np.zeros((7, 3)))
