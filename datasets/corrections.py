"""Corrected plans, by where they come from.

The expert is the plan of single-turn samples. The other sources correct one flawed plan each: functions (scene, plans
(N, 8, 3), feedback on each, metric, rounding) -> corrected plans (N, 8, 3) and their true scores (N,), NaN for none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mtdrive.datasets.plans import TIMES, centerline_path, expert_path, swept
from mtdrive.datasets.schema import Target
from mtdrive.simulation.baselines import INTERVAL, human_plan, pdm_closed_plan
from mtdrive.simulation.feedback import repair
from mtdrive.simulation.feedback.paths import shift, travel
from mtdrive.simulation.feedback.structured import Feedback
from mtdrive.simulation.scene import HORIZON, Scene
from mtdrive.simulation.scoring import score

FIRST = np.array([-4.0, -3.0, -2.0, -1.2, -0.6, 0.0, 0.6, 1.2, 1.8])  # [m/s^2] up to 2 s
SECOND = np.array([-3.0, -1.8, -0.9, 0.0, 0.9, 1.6])  # [m/s^2] from 2 s on
OFFSETS = (-2.4, -1.6, -0.8, 0.0, 0.8, 1.6, 2.4)  # [m]
TOLERANCE = 0.02  # PDMS by which the human or PDM-Closed may fall short of the best plan found
TRAVELS = np.array([-24.0, -16.0, -10.0, -6.0, -3.0, 0.0, 3.0, 6.0, 10.0])  # [m] around a flawed plan
SHIFTS = np.array([-2.4, -1.6, -0.8, 0.0, 0.8, 1.6, 2.4])  # [m]
TIE = 0.02  # PDMS by which a plan may fall short of the best and count as equally good

Rounding = Callable[[np.ndarray], np.ndarray]  # `Recipe.round_plans`


def find_expert(scene: Scene, metric: str, round_plans: Rounding) -> Target:
    """The human if nearly the best of the scene's candidates, else PDM-Closed likewise, else the best."""
    poses, source = candidate_plans(scene)
    poses = round_plans(poses)
    scores = score(scene, poses, metric=metric).score
    best = int(np.argmax(scores))
    row = next(row for row in (0, 1, best) if scores[row] >= scores[best] - TOLERANCE)
    return Target(poses[row], str(source[row]), float(scores[row]))


def candidate_plans(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """The human, PDM-Closed, and speed profiles over shifted paths: poses (M, 8, 3) and sources (M,)."""
    aside = swept(scene, expert_path(scene), FIRST, SECOND, OFFSETS)
    centred = swept(scene, centerline_path(scene), FIRST, SECOND, (0.0,))
    poses = np.concatenate([human_plan(scene)[None], pdm_closed_plan(scene)[None], aside, centred])
    source = np.full(len(poses), "search", dtype=object)
    source[:2] = ["human", "pdm_closed"]
    return poses[:, : len(TIMES)], source


def apply_feedback(
    scene: Scene, plans: np.ndarray, feedbacks: Sequence[Feedback], metric: str, round_plans: Rounding
) -> tuple[np.ndarray, np.ndarray]:
    """The plan with the changes that its feedback names: the answer that is easiest to learn."""
    changed = [
        repair.apply_changes(scene, plan, feedback.changes) for plan, feedback in zip(plans, feedbacks, strict=True)
    ]
    poses = round_plans(np.stack(changed))
    scores = score(scene, poses, metric=metric).score
    return poses, np.where([bool(feedback.changes) for feedback in feedbacks], scores, np.nan)


def search_nearby(
    scene: Scene, plans: np.ndarray, feedbacks: Sequence[Feedback], metric: str, round_plans: Rounding
) -> tuple[np.ndarray, np.ndarray]:
    """The best of a search around the plan (farther or less far along its path, and to its sides).

    Among plans that score about as well as the best, the one nearest to the flawed plan.
    """
    tried = round_plans(np.stack([_around(scene, plan) for plan in plans]))
    scores = score(scene, tried.reshape(-1, *tried.shape[2:]), metric=metric).score.reshape(tried.shape[:2])
    scores = np.nan_to_num(scores, nan=-1.0)
    away = np.hypot(*np.moveaxis(tried[..., :2] - plans[:, None, :, :2], -1, 0)).mean(axis=-1)
    good = scores >= scores.max(axis=1, keepdims=True) - TIE
    chosen = np.argmin(np.where(good, away, np.inf), axis=1)
    rows = np.arange(len(plans))
    return tried[rows, chosen], scores[rows, chosen]


def _around(scene: Scene, plan: np.ndarray) -> np.ndarray:
    paced = travel(plan, TRAVELS, INTERVAL, float(scene.velocity[0]), scene.centerline)
    return np.concatenate([shift(poses, SHIFTS, HORIZON, INTERVAL) for poses in paced])


CORRECTIONS: dict[str, Callable[..., tuple[np.ndarray, np.ndarray]]] = {"told": apply_feedback, "nearby": search_nearby}
