"""Corrected plans: for a scene and a flawed plan, one that the scorer likes better, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtdrive.datasets.plans import TIMES, centerline_path, expert_path, plan_along, profile_distances, shifted
from mtdrive.datasets.schema import Target
from mtdrive.simulation.baselines import human_plan, pdm_closed_plan
from mtdrive.simulation.scene import Scene

FIRST = np.array([-4.0, -3.0, -2.0, -1.2, -0.6, 0.0, 0.6, 1.2, 1.8])  # [m/s^2] up to 2 s
SECOND = np.array([-3.0, -1.8, -0.9, 0.0, 0.9, 1.6])  # [m/s^2] from 2 s on
OFFSETS = (-2.4, -1.6, -0.8, 0.0, 0.8, 1.6, 2.4)  # [m]
TOLERANCE = 0.02  # PDMS by which the human or PDM-Closed may fall short of the best plan found
TOLD_TOLERANCE = 0.1  # likewise the told plan: an answer that follows from the feedback is the easier one to learn


@dataclass(frozen=True)
class Vocabulary:
    """A scene's candidate plans and their true scores. poses: (M, 8, 3); source: (M,) str; score: (M,)."""

    poses: np.ndarray
    source: np.ndarray
    score: np.ndarray

    def expert(self) -> Target:
        """The plan to answer with unasked: the human if nearly the best, else PDM-Closed likewise, else the best."""
        best = int(np.argmax(self.score))
        row = next(row for row in (0, 1, best) if self.score[row] >= self.score[best] - TOLERANCE)
        return Target(self.poses[row], str(self.source[row]), float(self.score[row]))


def candidate_plans(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The human, PDM-Closed, and speed profiles over shifted paths: poses (M, 8, 3) and sources (M,)."""
    first, second = (grid.ravel() for grid in np.meshgrid(FIRST, SECOND))
    distances = profile_distances(float(scene.velocity[0]), first, second)
    path = expert_path(scene)
    searched = [plan_along(shifted(path, offset) if offset else path, distances) for offset in OFFSETS]
    searched.append(plan_along(centerline_path(scene), distances))
    poses = np.concatenate([human_plan(scene)[None], pdm_closed_plan(scene)[None], *searched])
    source = np.full(len(poses), "search", dtype=object)
    source[:2] = ["human", "pdm_closed"]
    return poses[:, : len(TIMES)], source


def correct(expert: Target, told: Target | None, above: float) -> Target | None:
    """The correction of a plan that scores `above`: what it was told if nearly as good as the expert, or the expert.

    None where neither scores higher than the plan.
    """
    for plan, least in ((told, expert.score - TOLD_TOLERANCE), (expert, expert.score)):
        if plan is not None and plan.score >= least and plan.score > above:
            return plan
    return None
