"""The search for changes that help a plan. Each is tried: simulated and scored like the plan, in the same traffic.

A change is one number: how much farther or less far to travel, or how far to shift to a side (`feedback.paths` defines
the changed plans). A plan gets the best single change and, if its score is then still below GOOD_SCORE, the best one of
the other kind on top of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtdrive.simulation.feedback.paths import distances_along, shift, travel
from mtdrive.simulation.feedback.structured import Change, ChangeKind, Feedback, Finding
from mtdrive.simulation.metrics.progress import PROGRESS
from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.scene import HORIZON, Scene
from mtdrive.simulation.scoring import OK, score

ACCELERATIONS = np.array([-6.0, -4.0, -2.8, -1.8, -1.0, -0.5, 0.5, 1.0, 1.8])  # [m/s^2] added to the plan's mean
OFFSETS = np.array([-3.2, -2.0, -1.2, -0.6, 0.6, 1.2, 2.0, 3.2])  # [m] to the left
EARLIEST_SHIFT = 1.0  # [s] a car does not move aside faster
TIE = 0.02  # values this close to the best are equal, and the gentlest of the equal changes is chosen
SECOND_TIE = 0.05  # likewise, for a second change
GOOD_SCORE = 0.9  # from which on no second change is searched
IGNORED_WEIGHT = 0.1  # in a trial's value, of a sub-metric that the score ignores: a change must not ruin it
MEAN_WEIGHT = 0.01  # in a trial's value, of the mean sub-metric: mending one of two fatal violations helps


def apply_changes(scene: Scene, poses: np.ndarray, changes: Sequence[Change], interval: float = 0.5) -> np.ndarray:
    """The plan (T, 3) that results from a plan (T, 3), `interval` [s] between poses, by all changes in their order."""
    for change in changes:
        poses = _changed(scene, poses, change.kind, np.array([change.amount]), change.time, interval)[0]
    return poses


def add_steps(scene: Scene, poses: np.ndarray, feedback: Feedback, interval: float) -> Feedback:
    """The same feedback on a plan (T, 3) with `steps`: its changes second by second."""
    if not feedback.changes:
        return feedback
    plan, last = apply_changes(scene, poses, feedback.changes, interval), feedback.changes[-1]
    farther, aside = distances_along(plan) - distances_along(poses), plan[:, :2] - poses[:, :2]
    if last.kind is ChangeKind.TRAVEL:
        amounts = farther
    else:
        amounts = aside[:, 1] * np.cos(poses[:, 2]) - aside[:, 0] * np.sin(poses[:, 2])
    steps = tuple(
        replace(
            last, amount=float(amounts[round(time / interval) - 1]), time=time, position=_position(plan, time, interval)
        )
        for time in np.arange(1.0, HORIZON + 1.0).tolist()
    )
    return replace(feedback, steps=steps)


def add_changes(
    scene: Scene,
    poses: np.ndarray,
    interval: float,
    feedbacks: Sequence[Feedback],
    human_penalty_filter: bool | None = None,
) -> list[Feedback]:
    """The same feedback with the changes that help each plan, and with the change that helps against each finding.

    Args:
        scene: with the traffic that the feedback knows.
        poses: (N, T, 3) the plans.
        interval: [s] between poses.
        feedbacks: N, without changes.
        human_penalty_filter: as in `scoring.score`.
    """

    def outcomes(trials: Sequence[_Trials]) -> list[_Outcome]:
        return _score(scene, trials, interval, feedbacks[0].metric, human_penalty_filter) if trials else []

    improved = list(feedbacks)
    rows = [row for row, feedback in enumerate(feedbacks) if feedback.findings and not feedback.clean]
    trials = [_trials(scene, poses[row], interval, feedbacks[row], _kinds(feedbacks[row])) for row in rows]
    for row, outcome in zip(rows, outcomes(trials), strict=True):
        findings = tuple(f if f.passed else replace(f, change=outcome.best_for(f)) for f in feedbacks[row].findings)
        best = outcome.best()
        improved[row] = replace(feedbacks[row], findings=findings, changes=() if best is None else (best,))

    rows = [row for row in rows if improved[row].changes and improved[row].changes[0].score < GOOD_SCORE]
    trials = []
    for row in rows:
        first = improved[row].changes[0]
        other = [kind for kind in ChangeKind if kind is not first.kind]
        changed = apply_changes(scene, poses[row], [first], interval)
        trials.append(_trials(scene, changed, interval, feedbacks[row], other))
    for row, outcome in zip(rows, outcomes(trials), strict=True):
        second = outcome.best(tie=SECOND_TIE)
        if second is not None:
            changes = (*improved[row].changes, second)
            plan = apply_changes(scene, poses[row], changes, interval)
            changes = tuple(replace(change, position=_position(plan, change.time, interval)) for change in changes)
            improved[row] = replace(improved[row], changes=changes)
    return improved


def _kinds(feedback: Feedback) -> list[ChangeKind]:
    """Shifting helps where something is in the way or the road ends, not against slowness or discomfort."""
    located = any(finding.time is not None for finding in feedback.violations)
    return [ChangeKind.TRAVEL, ChangeKind.SHIFT] if located else [ChangeKind.TRAVEL]


@dataclass(frozen=True)
class _Trials:
    """A plan and K - 1 changes of it, to be scored."""

    plans: np.ndarray
    """(K, T, 3) the plan as it is, then the changed ones."""
    changes: list[Change | None]
    """K, of which the first is None."""
    effort: np.ndarray
    """(K,) acceleration that the change takes [m/s^2]."""


@dataclass(frozen=True)
class _Outcome:
    """The scores of K trials, of which the first is the plan as it is."""

    changes: list[Change | None]
    """K, as in `_Trials`."""
    effort: np.ndarray
    """(K,) [m/s^2], as in `_Trials`."""
    columns: dict[str, np.ndarray]
    """Sub-metrics (K,) by column."""
    score: np.ndarray
    """(K,) final scores."""
    value: np.ndarray
    """(K,) what the trials are compared by: the score and small shares of the sub-metrics; -inf if invalid."""

    def best(self, among: np.ndarray | bool = True, tie: float = TIE) -> Change | None:
        """The gentlest of the best trials `among` (K,) bool that cost no score; None if that is the plan as it is."""
        among = among & (self.score >= self.score[0])
        value = np.where(among, self.value, -np.inf)
        good = among & (value >= value.max() - tie)
        chosen = int(np.argmin(np.where(good, self.effort, np.inf)))
        change = self.changes[chosen]
        return change and replace(change, score=float(self.score[chosen]))

    def best_for(self, finding: Finding) -> Change | None:
        """The best of the changes that improve the sub-metric of a finding."""
        values = self.columns[finding.metric]
        return self.best(values > values[0])


def _score(
    scene: Scene, trials: Sequence[_Trials], interval: float, metric: str, human_penalty_filter: bool | None
) -> list[_Outcome]:
    """Simulate and score all trials (at least one) in one call."""
    plans = np.concatenate([each.plans for each in trials])
    scores = score(scene, plans, interval, metric, human_penalty_filter)
    value = scores.score + MEAN_WEIGHT * np.mean(list(scores.columns.values()), axis=0)
    ignored = [sub_metric.column for sub_metric in metrics_of(metric) if not sub_metric.counts]
    value += IGNORED_WEIGHT * sum(scores.columns[column] for column in ignored)
    value = np.where(scores.status == OK, value, -np.inf)
    outcomes, end = [], 0
    for each in trials:
        rows = slice(end, end := end + len(each.plans))
        columns = {name: values[rows] for name, values in scores.columns.items()}
        outcomes.append(_Outcome(each.changes, each.effort, columns, scores.score[rows], value[rows]))
    return outcomes


def _trials(
    scene: Scene, poses: np.ndarray, interval: float, feedback: Feedback, kinds: Sequence[ChangeKind]
) -> _Trials:
    """A plan (T, 3) and its changes of some kinds, as the violations suggest them."""
    plans: list[np.ndarray] = [poses[None]]
    changes: list[Change | None] = [None]
    effort = [np.zeros(1)]

    def try_out(kind: ChangeKind, amounts: np.ndarray, time: float) -> None:
        changed = _changed(scene, poses, kind, amounts, time, interval)
        plans.append(changed)
        changes.extend(
            Change(kind, float(amount), time, _position(plan, time, interval), score=np.nan)
            for amount, plan in zip(amounts, changed, strict=True)
        )
        effort.append(np.abs(amounts) * (2.0 if kind is ChangeKind.TRAVEL else 6.0) / time**2)

    if ChangeKind.TRAVEL in kinds:
        amounts = ACCELERATIONS * HORIZON**2 / 2.0
        missing = [
            finding.limit - finding.measured
            for finding in feedback.violations
            if finding.quantity == PROGRESS and finding.limit is not None and finding.measured is not None
        ]
        amounts = np.append(amounts, missing)
        try_out(ChangeKind.TRAVEL, np.unique(np.maximum(amounts, -distances_along(poses)[-1])), HORIZON)
    if ChangeKind.SHIFT in kinds:
        begin = min((finding.time for finding in feedback.violations if finding.time is not None), default=HORIZON)
        soon = float(np.clip(np.ceil(begin / 0.5) * 0.5, EARLIEST_SHIFT, HORIZON))
        for time in sorted({soon, HORIZON}):
            try_out(ChangeKind.SHIFT, OFFSETS, time)
    return _Trials(np.concatenate(plans), changes, np.concatenate(effort))


def _position(plan: np.ndarray, time: float, interval: float) -> tuple[float, float]:
    """x, y [m] of a plan (T, 3) at a time [s]."""
    x, y = plan[round(time / interval) - 1, :2]
    return float(x), float(y)


def _changed(
    scene: Scene, poses: np.ndarray, kind: ChangeKind, amounts: np.ndarray, time: float, interval: float
) -> np.ndarray:
    """(K, T, 3) changes of a plan (T, 3) by amounts (K,) [m]."""
    if kind is ChangeKind.TRAVEL:
        return travel(poses, amounts, interval, float(scene.velocity[0]), scene.centerline)
    return shift(poses, amounts, time, interval)
