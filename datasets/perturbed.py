"""Perturbed expert plans: typical mistakes of a planner in training, drawn around the recorded human.

A perturbation is a function (scene, expert's path (K, 3), pace, rng) -> plan (8, 3). The pace is a random pair of
accelerations [m/s^2], before and after 2 s, for perturbations that do not choose their own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from mtdrive.datasets.plans import TIMES, centerline_path, expert_path, plan_along, profile_distances, shifted
from mtdrive.simulation.scene import Scene

Pace = tuple[float, float]
STRAIGHT = 2.0  # [m] a path that ends less than this to the side is no turn


def speed(scene: Scene, path: np.ndarray, pace: Pace, rng: np.random.Generator) -> np.ndarray:
    """The expert's path at another speed."""
    return along(scene, path, *pace)


def late_braking(scene: Scene, path: np.ndarray, pace: Pace, rng: np.random.Generator) -> np.ndarray:
    """The expert's path, braking hard after 1 to 3 s."""
    return along(scene, path, rng.uniform(-0.5, 1.0), rng.uniform(-4.5, -1.0), rng.uniform(1.0, 3.0))


def lateral(scene: Scene, path: np.ndarray, pace: Pace, rng: np.random.Generator) -> np.ndarray:
    """To a side of the expert's path."""
    aside = shifted(path, rng.choice([-1, 1]) * rng.uniform(0.4, 2.8), length=rng.uniform(8.0, 20.0))
    return along(scene, aside, rng.uniform(-1.5, 1.5), rng.uniform(-1.0, 1.0))


def wrong_path(scene: Scene, path: np.ndarray, pace: Pace, rng: np.random.Generator) -> np.ndarray:
    """Straight on, or along the centre line."""
    straight = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    return along(scene, straight if rng.random() < 0.5 else centerline_path(scene), *pace)


def wrong_command(scene: Scene, path: np.ndarray, pace: Pace, rng: np.random.Generator) -> np.ndarray:
    """The turn to the other side; a turn to either side where the expert goes straight on."""
    if abs(path[-1, 1]) >= STRAIGHT:
        other = path * np.array([1.0, -1.0, -1.0])
    else:
        radius = rng.choice([-1, 1]) * rng.uniform(8.0, 20.0)
        heading = np.linspace(0.0, np.pi / 2.0, 30) * np.sign(radius)
        other = np.column_stack([radius * np.sin(heading), radius * (1.0 - np.cos(heading)), heading])
    return along(scene, other, *pace)


def noise(scene: Scene, path: np.ndarray, pace: Pace, rng: np.random.Generator) -> np.ndarray:
    """The recorded human, stretched and drifting."""
    scale = 1.0 + rng.normal(0.0, 0.25)
    drift = rng.normal(0.0, 0.5) * (TIMES / TIMES[-1]) ** 2
    plan = scene.human_poses[: len(TIMES)] * np.array([scale, scale, 1.0])
    plan[:, 1] += drift
    return plan


PERTURBATIONS: dict[str, Callable[[Scene, np.ndarray, Pace, np.random.Generator], np.ndarray]] = {
    "speed": speed,
    "late_braking": late_braking,
    "lateral": lateral,
    "wrong_path": wrong_path,
    "noise": noise,
    "wrong_command": wrong_command,
}


def perturbed_plans(
    scene: Scene, rng: np.random.Generator, count: int, shares: Mapping[str, float]
) -> tuple[np.ndarray, list[str]]:
    """Draw plans that may be flawed; the scorer decides which are.

    shares: perturbation -> its share. Returns plans (count, 8, 3) and the perturbation of each.
    """
    names = [name for name in PERTURBATIONS if shares.get(name, 0.0) > 0.0]
    weights = np.array([shares[name] for name in names])
    path = expert_path(scene)
    plans, drawn = np.empty((count, len(TIMES), 3)), rng.choice(names, count, p=weights / weights.sum())
    for row, name in enumerate(drawn):
        pace = rng.uniform(-4.0, 2.2), rng.uniform(-3.0, 2.0)
        plans[row] = PERTURBATIONS[name](scene, path, pace, rng)
    return plans, drawn.tolist()


def along(scene: Scene, path: np.ndarray, first: float, second: float, switch: float = 2.0) -> np.ndarray:
    """One plan (8, 3) along a path (K, 3) from the present speed; see `plans.profile_distances`."""
    distances = profile_distances(float(scene.velocity[0]), np.array([first]), np.array([second]), switch)
    return plan_along(path, distances)[0]
