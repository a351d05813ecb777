"""Changes of a plan that a planner can be told in one number, and the search for those that help.

A change acts on the plan as a path and a distance profile along it: `travel` brakes or accelerates evenly from t0
on, `shift` moves the path sideways. What is told has been tried: each candidate is simulated and scored like the
plan itself, under the same traffic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mtdrive.simulation.feedback.structured import Change, ChangeKind, Feedback, Finding
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import Scores, score

ACCELERATIONS = np.array([-6.0, -4.0, -2.8, -1.8, -1.0, -0.5, 0.5, 1.0, 1.8])  # [m/s^2] on top of the plan's own
OFFSETS = np.array([-3.2, -2.0, -1.2, -0.6, 0.6, 1.2, 2.0, 3.2])  # [m]
EARLIEST_SHIFT = 1.0  # [s] a car does not get aside faster
SHORTEST = 1e-3  # [m] poses closer than this are one point of the path
TIE = 0.01  # scores this close count as equal: the smaller change is told


def apply(poses: np.ndarray, change: Change, interval: float = 0.5) -> np.ndarray:
    """The plan (T, 3), changed as told."""
    amount = np.array([change.amount])
    if change.kind is ChangeKind.TRAVEL:
        return travel(poses, amount, interval)[0]
    return shift(poses, amount, change.time, interval)[0]


def travelled(poses: np.ndarray) -> np.ndarray:
    """Distance along plans (..., T, 3) from t0 [m], (..., T)."""
    start = np.zeros((*poses.shape[:-2], 1, 2))
    steps = np.diff(np.concatenate([start, poses[..., :2]], axis=-2), axis=-2)
    return np.cumsum(np.hypot(steps[..., 0], steps[..., 1]), axis=-1)


def travel(poses: np.ndarray, amounts: np.ndarray, interval: float) -> np.ndarray:
    """Plans (K, T, 3) on the path of poses (T, 3) that end `amounts` (K,) [m] farther along it.

    The distance changes by an acceleration that is constant from t0 on; a plan that comes to a stop waits there.
    Beyond its end the path goes straight on.
    """
    distance = travelled(poses)
    end = np.maximum(distance[-1] + amounts, 0.0)[:, None]
    squared = (interval * np.arange(1, len(poses) + 1)) ** 2
    braking = np.max((distance - end) / squared, axis=1, keepdims=True)
    wanted = np.maximum.accumulate(np.maximum(distance - braking * squared, 0.0), axis=1)
    path = np.vstack([np.zeros(3), poses])
    path[:, 2] = np.unwrap(path[:, 2])
    at = np.concatenate([[0.0], distance])
    keep = np.concatenate([[True], np.diff(at) > SHORTEST])
    path, at = path[keep], at[keep]
    changed = np.stack([np.interp(wanted, at, column) for column in path.T], axis=-1)
    beyond = np.maximum(wanted - at[-1], 0.0)
    changed[..., 0] += beyond * np.cos(path[-1, 2])
    changed[..., 1] += beyond * np.sin(path[-1, 2])
    return changed


def shift(poses: np.ndarray, amounts: np.ndarray, time: float, interval: float) -> np.ndarray:
    """Plans (K, T, 3) that are `amounts` (K,) [m] left of poses (T, 3) from `time` [s] on, getting there smoothly."""
    progress = np.clip(interval * np.arange(len(poses) + 1) / time, 0.0, 1.0)
    offset = amounts[:, None] * progress**2 * (3.0 - 2.0 * progress)
    forward = np.gradient(np.concatenate([[0.0], travelled(poses)]))
    turn = np.arctan2(np.gradient(offset, axis=1), np.maximum(forward, SHORTEST))[:, 1:]
    heading = poses[:, 2]
    changed = np.repeat(poses[None], len(amounts), axis=0)
    changed[..., 0] -= offset[:, 1:] * np.sin(heading)
    changed[..., 1] += offset[:, 1:] * np.cos(heading)
    changed[..., 2] += np.where(forward[1:] > SHORTEST, turn, 0.0)
    return changed


def add_changes(scene: Scene, poses: np.ndarray, interval: float, feedbacks: Sequence[Feedback]) -> list[Feedback]:
    """The same feedback on plans (N, T, 3) with the needed change in every finding that a change can mend."""
    tried = [
        _candidates(plan, interval, feedback) if feedback.violations else ([], np.empty((0, *plan.shape)))
        for plan, feedback in zip(poses, feedbacks, strict=True)
    ]
    plans = np.concatenate([changed for _, changed in tried])
    if not len(plans):
        return list(feedbacks)
    scores = score(scene, plans, interval, feedbacks[0].metric)
    mended, first = [], 0
    for feedback, (changes, _) in zip(feedbacks, tried, strict=True):
        rows = range(first, first + len(changes))
        first += len(changes)
        changes = [replace(change, score=float(scores.score[row])) for change, row in zip(changes, rows, strict=True)]
        findings = tuple(
            finding if finding.passed else replace(finding, change=_best(feedback, finding, changes, rows, scores))
            for finding in feedback.findings
        )
        mended.append(replace(feedback, findings=findings))
    return mended


def _candidates(poses: np.ndarray, interval: float, feedback: Feedback) -> tuple[list[Change], np.ndarray]:
    """Changes to try on a plan (their scores not known yet), and the changed plans (K, T, 3)."""
    horizon = interval * len(poses)
    distance = travelled(poses)[-1]
    amounts = np.unique(np.maximum(ACCELERATIONS * horizon**2 / 2, -distance))
    changes = [Change(ChangeKind.TRAVEL, float(amount), horizon, np.nan) for amount in amounts]
    plans = [travel(poses, amounts, interval)]
    begin = min((finding.time for finding in feedback.violations if finding.time is not None), default=horizon)
    soon = max(EARLIEST_SHIFT, 0.5 * np.ceil(begin / 0.5))
    for time in sorted({min(soon, horizon), horizon}):
        changes += [Change(ChangeKind.SHIFT, float(offset), time, np.nan) for offset in OFFSETS]
        plans.append(shift(poses, OFFSETS, time, interval))
    return changes, np.concatenate(plans)


def _best(
    feedback: Feedback, finding: Finding, changes: Sequence[Change], rows: Sequence[int], scores: Scores
) -> Change | None:
    """The smallest of the best changes that improve the sub-metric without costing score."""
    values = scores.columns[finding.metric]
    helping = [
        change
        for change, row in zip(changes, rows, strict=True)
        if scores.status[row] == "ok" and values[row] > finding.value and change.score >= feedback.score
    ]
    if not helping:
        return None
    best = max(change.score for change in helping)
    return min((change for change in helping if change.score >= best - TIE), key=lambda change: abs(change.amount))
