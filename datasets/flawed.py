"""Flawed plans: what a planner in training gets wrong, drawn around the recorded human."""

from __future__ import annotations

import numpy as np

from mtdrive.datasets.plans import TIMES, centerline_path, expert_path, plan_along, profile_distances, shifted
from mtdrive.simulation.scene import Scene

GENERATORS = {"speed": 0.35, "late_braking": 0.2, "lateral": 0.2, "wrong_path": 0.1, "noise": 0.15}  # share of each


def flawed_plans(scene: Scene, rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """Draw plans that may be flawed; which of them are is for the scorer to say.

    Returns poses (count, 8, 3) and the name of the generator of each: `speed` (the expert's path at another speed),
    `late_braking`, `lateral` (off to a side), `wrong_path` (straight on or along the centre line), `noise`.
    """
    human = scene.human_poses[: len(TIMES)]
    path = expert_path(scene)
    speed = max(float(scene.velocity[0]), 0.0)
    names = rng.choice(
        ["speed", "late_braking", "lateral", "wrong_path", "noise"], count, p=[0.35, 0.2, 0.2, 0.1, 0.15]
    )
    plans = np.empty((count, len(TIMES), 3))
    for row, name in enumerate(names):
        first, second = rng.uniform(-4.0, 2.2), rng.uniform(-3.0, 2.0)
        switch = 2.0
        chosen = path
        if name == "late_braking":
            first, second, switch = rng.uniform(-0.5, 1.0), rng.uniform(-4.5, -1.0), rng.uniform(1.0, 3.0)
        elif name == "lateral":
            chosen = shifted(path, rng.choice([-1, 1]) * rng.uniform(0.4, 2.8), length=rng.uniform(8.0, 20.0))
            first, second = rng.uniform(-1.5, 1.5), rng.uniform(-1.0, 1.0)
        elif name == "wrong_path":
            straight = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
            chosen = straight if rng.random() < 0.5 else centerline_path(scene)
        if name == "noise":
            scale = 1.0 + rng.normal(0.0, 0.25)
            drift = rng.normal(0.0, 0.5) * (TIMES / TIMES[-1]) ** 2
            plans[row] = human * np.array([scale, scale, 1.0])
            plans[row, :, 1] += drift
        else:
            distances = profile_distances(speed, np.array([first]), np.array([second]), switch)
            plans[row] = plan_along(chosen, distances)[0]
    return plans, list(names)


def between(flawed: np.ndarray, corrected: np.ndarray, share: float) -> np.ndarray:
    """A half-corrected plan (8, 3): `share` of the way from the flawed one to the corrected one."""
    return flawed + share * (corrected - flawed)
