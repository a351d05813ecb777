"""Corrected plans: for a scene and a flawed plan, one that the scorer likes better, and where it comes from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtdrive.datasets.plans import TIMES, centerline_path, expert_path, plan_along, profile_distances, shifted
from mtdrive.simulation.baselines import human_plan, pdm_closed_plan
from mtdrive.simulation.scene import Scene

FIRST = np.array([-4.0, -3.0, -2.0, -1.2, -0.6, 0.0, 0.6, 1.2, 1.8])  # [m/s^2] up to 2 s
SECOND = np.array([-3.0, -1.8, -0.9, 0.0, 0.9, 1.6])  # [m/s^2] from 2 s on
OFFSETS = (-2.4, -1.6, -0.8, 0.0, 0.8, 1.6, 2.4)  # [m]
TOLERANCE = 0.02  # PDMS by which a preferred source may fall short of the best plan found


@dataclass(frozen=True)
class Vocabulary:
    """A scene's candidate plans and their true scores. poses: (M, 8, 3); source: (M,) str; score: (M,)."""

    poses: np.ndarray
    source: np.ndarray
    score: np.ndarray


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


def choose(vocabulary: Vocabulary, above: float) -> tuple[np.ndarray, str, float] | None:
    """The correction: the human if nearly the best, else PDM-Closed if nearly the best, else the best.

    above: PDMS of the flawed plan; a correction scores higher. Returns poses (8, 3), its source and its score,
    or None where nothing scores higher.
    """
    best = int(np.argmax(vocabulary.score))
    for row in (0, 1, best):
        if vocabulary.score[row] >= vocabulary.score[best] - TOLERANCE and vocabulary.score[row] > above:
            return vocabulary.poses[row], str(vocabulary.source[row]), float(vocabulary.score[row])
    return None
