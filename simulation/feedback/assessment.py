"""What a plan is worth and what to say about it: scores, and feedback from one of two sources."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtdrive.simulation.baselines import NUM_POSES, human_plan
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.diagnose import diagnose
from mtdrive.simulation.feedback.perceived import perceived_scene
from mtdrive.simulation.feedback.repair import add_changes, add_steps
from mtdrive.simulation.feedback.structured import SOURCES, Feedback, Source
from mtdrive.simulation.metrics.extended_comfort import extended_comfort
from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.runtime.identity_cache import cache_by_identity
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import OK, Scores, score


@dataclass(frozen=True)
class Assessment:
    """One plan, scored and commented.

    score, scores: always against log replay, by navsim's column names; nan if the status is not "ok".
    clean, feedback: under the traffic of the feedback's source.
    states: (41, 11) the plan as driven (log replay); nan if the status is not "ok".
    extended_comfort: 1 if the driven plan and the driven human's differ within the limits of two-frame extended
    comfort, else 0. The human stands in for the plan of the frame before, which a single frame does not have. nan
    without a recorded human or if the status is not "ok".
    """

    score: float
    scores: dict[str, float]
    status: str
    clean: bool
    feedback: Feedback
    states: np.ndarray
    extended_comfort: float


def assess(
    scene: Scene,
    poses: np.ndarray,
    *,
    interval: float = 0.5,
    metric: str = "pdms_v1",
    source: Source = "privileged",
    steps: bool = False,
) -> list[Assessment]:
    """Score plans (N, T, 3) of one scene together and say what each violates and what must change.

    source: "privileged" comments on the traffic that the log recorded; "perceived" only on what is known at t0.
    steps: tell changes second by second, not only where they end.

    Raises:
        MTDriveError: an unknown source or metric, or poses of a wrong shape.
    """
    if source not in SOURCES:
        raise MTDriveError(f"There is no feedback source {source!r}: choose {' or '.join(SOURCES)}.")
    poses = np.asarray(poses, dtype=np.float64)
    true = score(scene, poses, interval, metric)
    known_scene, known = scene, true
    if source == "perceived":
        known_scene = perceived_scene(scene, metric)
        known = score(known_scene, poses, interval, metric)
    feedbacks = [_feedback(known_scene, known, row, poses[row], source) for row in range(len(poses))]
    feedbacks = add_changes(known_scene, poses, interval, feedbacks)
    if steps:
        feedbacks = [add_steps(known_scene, plan, interval, said) for plan, said in zip(poses, feedbacks, strict=True)]
    return _assessments(scene, true, feedbacks)


def comment(scene: Scene, scores: Scores, poses: np.ndarray) -> list[Assessment]:
    """What the log objects to in plans (N, T, 3) that have been scored already, without what must change."""
    feedbacks = [_feedback(scene, scores, row, poses[row], "privileged") for row in range(len(poses))]
    return _assessments(scene, scores, feedbacks)


def _assessments(scene: Scene, scores: Scores, feedbacks: Sequence[Feedback]) -> list[Assessment]:
    comfort = _extended_comfort(scene, scores)
    return [
        Assessment(
            score=float(scores.score[row]),
            scores={name: float(values[row]) for name, values in scores.columns.items()},
            status=str(scores.status[row]),
            clean=feedback.clean,
            feedback=feedback,
            states=scores.events["states"][row],
            extended_comfort=float(comfort[row]),
        )
        for row, feedback in enumerate(feedbacks)
    ]


def _extended_comfort(scene: Scene, scores: Scores) -> np.ndarray:
    """(N,) See Assessment."""
    comfort = np.full(len(scores.status), np.nan)
    rows = np.flatnonzero(scores.status == OK)
    if len(rows) and len(scene.human_poses) >= NUM_POSES:
        states = np.concatenate([scores.events["states"][rows], _human_states(scene)])
        human = np.full(len(rows), len(rows))
        comfort[rows] = extended_comfort(states, np.zeros(len(states)), np.arange(len(rows)), human)
    return comfort


@cache_by_identity
def _human_states(scene: Scene) -> np.ndarray:
    """(1, 41, 11) the recorded human as driven."""
    return score(scene, human_plan(scene)[None]).events["states"]


def _feedback(scene: Scene, scores: Scores, row: int, poses: np.ndarray, source: Source) -> Feedback:
    if scores.status[row] != OK:
        problem = "numbers that are not finite" if not np.isfinite(poses).all() else "poses that no car can follow"
        return Feedback(scores.metric, source, float("nan"), False, (), problem=problem)
    findings = tuple(diagnose(scene, scores, row))
    counted = {metric.column for metric in metrics_of(scores.metric) if metric.counts}
    clean = all(finding.passed for finding in findings if finding.metric in counted)
    return Feedback(scores.metric, source, float(scores.score[row]), clean, findings)
