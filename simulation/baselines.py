"""Planners without learning: poses (8, 3) at 0.5 s in the ego rear-axle frame at t0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene import STEP, Scene

INTERVAL = 0.5  # [s]
NUM_POSES = 8


def constant_velocity_plan(scene: Scene) -> np.ndarray:
    """Straight on at the present speed (navsim `ConstantVelocityAgent`)."""
    return keep_velocity(scene.velocity)


def keep_velocity(velocity: np.ndarray) -> np.ndarray:
    """Straight on at the speed of a velocity (2,) [m/s]."""
    plan = np.zeros((NUM_POSES, 3))
    plan[:, 0] = np.arange(1, NUM_POSES + 1) * INTERVAL * np.hypot(*velocity)
    return plan


def standstill_plan(scene: Scene) -> np.ndarray:
    """Stay where the car is at t0."""
    return np.zeros((NUM_POSES, 3))


def human_plan(scene: Scene) -> np.ndarray:
    """What the recorded driver did.

    Raises:
        MTDriveError: the scene has no recorded future (navsim's synthetic scenes).
    """
    if len(scene.human_poses) < NUM_POSES:
        raise MTDriveError(
            f"Scene {scene.token} records {len(scene.human_poses)} human poses and {NUM_POSES} are needed: "
            "leave the human baseline out."
        )
    return np.array(scene.human_poses[:NUM_POSES])


def pdm_closed_plan(scene: Scene, metric: str | None = None) -> np.ndarray:
    """PDM-Closed, the rule-based planner whose progress normalises the score, sampled at 0.5 s.

    Args:
        scene: the scene.
        metric: score version whose PDM-Closed it is; None for the first that the scene can be scored by.
    """
    every = round(INTERVAL / STEP)
    reference = scene.references[metric or next(iter(scene.references))]
    return np.array(reference.states[every : every * NUM_POSES + 1 : every, :3])


BASELINES: dict[str, Callable[[Scene], np.ndarray]] = {
    "constant_velocity": constant_velocity_plan,
    "standstill": standstill_plan,
    "human": human_plan,
    "pdm_closed": pdm_closed_plan,
}
