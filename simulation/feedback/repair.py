"""The search for changes that help a plan: each is tried, simulated and scored like the plan, under the same traffic.

A change is one number that a planner can be told: how much farther or less far to travel, or how far to shift to a
side (`feedback.paths` defines the changed plans). A plan gets the best single change, and where that leaves
something open, one of the other kind on top of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtdrive.simulation.feedback.paths import shift, travel, travelled
from mtdrive.simulation.feedback.structured import Change, ChangeKind, Feedback, Finding
from mtdrive.simulation.metrics.progress import PROGRESS
from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.scene import HORIZON, Scene
from mtdrive.simulation.scoring import OK, score

ACCELERATIONS = np.array([-6.0, -4.0, -2.8, -1.8, -1.0, -0.5, 0.5, 1.0, 1.8])  # [m/s^2] more than the plan's mean
OFFSETS = np.array([-3.2, -2.0, -1.2, -0.6, 0.6, 1.2, 2.0, 3.2])  # [m]
EARLIEST_SHIFT = 1.0  # [s] a car does not get aside faster
TIE = 0.02  # a worth this much higher counts; among equals the gentlest change is told
SECOND = 0.05  # likewise, for a second change
GOOD = 0.9  # a score from which on no second change is sought
UNWEIGHTED = 0.1  # share of a sub-metric that the score version ignores, so that a change does not ruin it
EACH = 0.01  # share of every sub-metric's mean, so that one of two fatal violations mended counts


def apply(scene: Scene, poses: np.ndarray, changes: Sequence[Change], interval: float = 0.5) -> np.ndarray:
    """The plan (T, 3) with all changes made, in their order."""
    for change in changes:
        poses = _changed(scene, poses, change.kind, np.array([change.amount]), change.time, interval)[0]
    return poses


def add_steps(scene: Scene, poses: np.ndarray, interval: float, feedback: Feedback) -> Feedback:
    """The same feedback on a plan (T, 3), its changes told second by second too."""
    if not feedback.changes:
        return feedback
    plan, last = apply(scene, poses, feedback.changes, interval), feedback.changes[-1]
    farther, aside = travelled(plan) - travelled(poses), plan[:, :2] - poses[:, :2]
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


def add_changes(scene: Scene, poses: np.ndarray, interval: float, feedbacks: Sequence[Feedback]) -> list[Feedback]:
    """The same feedback on plans (N, T, 3), with the changes that help each plan, and each finding on its own."""
    mended = list(feedbacks)
    rows = [row for row, feedback in enumerate(feedbacks) if feedback.findings and not feedback.clean]
    trials = [_trials(scene, poses[row], interval, feedbacks[row], _kinds(feedbacks[row])) for row in rows]
    for row, outcome in zip(rows, _score(scene, trials, interval, feedbacks), strict=True):
        findings = tuple(f if f.passed else replace(f, change=outcome.mending(f)) for f in feedbacks[row].findings)
        best = outcome.best()
        mended[row] = replace(feedbacks[row], findings=findings, changes=() if best is None else (best,))

    rows = [row for row in rows if mended[row].changes and mended[row].changes[0].score < GOOD]
    trials = []
    for row in rows:
        first = mended[row].changes[0]
        other = [kind for kind in ChangeKind if kind is not first.kind]
        trials.append(_trials(scene, apply(scene, poses[row], [first], interval), interval, feedbacks[row], other))
    for row, outcome in zip(rows, _score(scene, trials, interval, feedbacks), strict=True):
        second = outcome.best(tie=SECOND)
        if second is not None:
            changes = (*mended[row].changes, second)
            plan = apply(scene, poses[row], changes, interval)
            changes = tuple(replace(change, position=_position(plan, change.time, interval)) for change in changes)
            mended[row] = replace(mended[row], changes=changes)
    return mended


def _kinds(feedback: Feedback) -> list[ChangeKind]:
    """Going aside helps where something is in the way or the road ends, not against slowness or discomfort."""
    aside = any(finding.time is not None for finding in feedback.violations)
    return [ChangeKind.TRAVEL, ChangeKind.SHIFT] if aside else [ChangeKind.TRAVEL]


@dataclass(frozen=True)
class _Trials:
    """A plan and K - 1 changes of it. plans: (K, T, 3). changes: K, None first. effort: (K,) [m/s^2]."""

    plans: np.ndarray
    changes: list[Change | None]
    effort: np.ndarray


@dataclass(frozen=True)
class _Outcome:
    """What came of K trials. columns: name -> (K,). score, worth, effort: (K,)."""

    changes: list[Change | None]
    effort: np.ndarray
    columns: dict[str, np.ndarray]
    score: np.ndarray
    worth: np.ndarray

    def best(self, among: np.ndarray | bool = True, tie: float = TIE) -> Change | None:
        """The gentlest of the best trials `among` (K,) bool that cost no score; None if that is the plan as it is."""
        among = among & (self.score >= self.score[0])
        worth = np.where(among, self.worth, -np.inf)
        good = among & (worth >= worth.max() - tie)
        chosen = int(np.argmin(np.where(good, self.effort, np.inf)))
        change = self.changes[chosen]
        return change and replace(change, score=float(self.score[chosen]))

    def mending(self, finding: Finding) -> Change | None:
        """The best of the changes that improve a sub-metric."""
        values = self.columns[finding.metric]
        return self.best(values > values[0])


def _score(scene: Scene, trials: Sequence[_Trials], interval: float, feedbacks: Sequence[Feedback]) -> list[_Outcome]:
    """Simulate and score all trials in one call."""
    if not trials:
        return []
    metric = feedbacks[0].metric
    scores = score(scene, np.concatenate([tried.plans for tried in trials]), interval, metric)
    worth = scores.score + EACH * np.mean(list(scores.columns.values()), axis=0)
    ignored = [sub_metric.column for sub_metric in metrics_of(metric) if not sub_metric.counts]
    worth += UNWEIGHTED * sum(scores.columns[column] for column in ignored)
    worth = np.where(scores.status == OK, worth, -np.inf)
    outcomes, end = [], 0
    for tried in trials:
        rows = slice(end, end := end + len(tried.plans))
        columns = {name: values[rows] for name, values in scores.columns.items()}
        outcomes.append(_Outcome(tried.changes, tried.effort, columns, scores.score[rows], worth[rows]))
    return outcomes


def _trials(
    scene: Scene, poses: np.ndarray, interval: float, feedback: Feedback, kinds: Sequence[ChangeKind]
) -> _Trials:
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
        short = [finding.limit - finding.measured for finding in feedback.violations if finding.quantity == PROGRESS]
        amounts = np.append(amounts, short)
        try_out(ChangeKind.TRAVEL, np.unique(np.maximum(amounts, -travelled(poses)[-1])), HORIZON)
    if ChangeKind.SHIFT in kinds:
        begin = min((finding.time for finding in feedback.violations if finding.time is not None), default=HORIZON)
        soon = float(np.clip(np.ceil(begin / 0.5) * 0.5, EARLIEST_SHIFT, HORIZON))
        for time in sorted({soon, HORIZON}):
            try_out(ChangeKind.SHIFT, OFFSETS, time)
    return _Trials(np.concatenate(plans), changes, np.concatenate(effort))


def _position(plan: np.ndarray, time: float, interval: float) -> tuple[float, float]:
    x, y = plan[round(time / interval) - 1, :2]
    return float(x), float(y)


def _changed(
    scene: Scene, poses: np.ndarray, kind: ChangeKind, amounts: np.ndarray, time: float, interval: float
) -> np.ndarray:
    if kind is ChangeKind.TRAVEL:
        return travel(poses, amounts, interval, float(scene.velocity[0]), scene.centerline)
    return shift(poses, amounts, time, interval)
