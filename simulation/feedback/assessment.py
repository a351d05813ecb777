"""Assessing plans: their scores, and feedback on each from one of two sources."""

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
from mtdrive.simulation.feedback.text import NOT_DRIVABLE, NOT_FINITE
from mtdrive.simulation.metrics.extended_comfort import extended_comfort
from mtdrive.simulation.metrics.registry import metrics_of
from mtdrive.simulation.runtime.identity_cache import cache_by_identity
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import OK, Scores, score
from mtdrive.simulation.trajectory import validate_batch


@dataclass(frozen=True)
class Assessment:
    """The scores of one plan and the feedback on it. Numbers are NaN if the status is not "ok"."""

    score: float
    """The final score in [0, 1], always against log replay."""
    scores: dict[str, float]
    """Sub-metrics in [0, 1] by navsim's column name, always against log replay."""
    status: str
    """"ok" or "invalid_trajectory"."""
    clean: bool
    """Whether every sub-metric that counts passes, in the traffic that the feedback's source knows."""
    feedback: Feedback
    """What the plan violates and which changes help, in the traffic that the feedback's source knows."""
    states: np.ndarray
    """(41, 11) the driven plan (log replay), columns as in `dynamics.state`."""
    extended_comfort: float
    """1 if the driven plan and the driven human plan agree within the limits of two-frame extended comfort, else 0. The
    human plan stands in for the plan of the previous frame, which a single scene lacks. NaN without a recorded human.
    """


def assess(
    scene: Scene,
    poses: np.ndarray,
    *,
    interval: float = 0.5,
    metric: str = "pdms_v1",
    source: Source = "privileged",
    suggest: bool = True,
    steps: bool = False,
    human_penalty_filter: bool | None = None,
) -> list[Assessment]:
    """Score plans of one scene and give feedback on each: what it violates, where and when, and which changes help.

    For instance, one round of refinement::

        assessment = assess(scene, plan[None])[0]  # plan (8, 3) at 0.5 s
        if not assessment.clean:
            print(render_text(assessment.feedback))  # the message to the planner
            better = apply_changes(scene, plan, assessment.feedback.changes)

    Args:
        scene: where the plans are driven.
        poses: (N, T, 3) rear-axle x [m], y [m], heading [rad] in the ego frame at t0; T = 8 at 0.5 s or 40 at 0.1 s.
        interval: [s] between poses.
        metric: score version, as in `scoring.score`.
        source: which traffic the feedback knows: "privileged", the log's own future, or "perceived", the detections at
            t0 extrapolated. Scores are against log replay in both cases.
        suggest: search for changes that help. They are tried in simulation, which takes most of the time.
        steps: give the changes second by second too, not only where they end.
        human_penalty_filter: as in `scoring.score`.

    Returns:
        One assessment for each plan, in order.

    Raises:
        MTDriveError: an unknown source or metric, poses of a wrong shape or interval, or a filter that the metric does
            not have.
    """
    if source not in SOURCES:
        raise MTDriveError(f"There is no feedback source {source!r}: choose {' or '.join(SOURCES)}.")
    poses, _ = validate_batch(poses, interval)
    scores = score(scene, poses, interval, metric, human_penalty_filter)
    known_scene, known_scores = scene, scores
    if source == "perceived":
        known_scene = perceived_scene(scene, metric)
        known_scores = score(known_scene, poses, interval, metric, human_penalty_filter)
    feedbacks = [_feedback(known_scene, known_scores, row, poses[row], source) for row in range(len(poses))]
    if suggest:
        feedbacks = add_changes(known_scene, poses, interval, feedbacks, human_penalty_filter)
    if steps:
        feedbacks = [
            add_steps(known_scene, plan, feedback, interval) for plan, feedback in zip(poses, feedbacks, strict=True)
        ]
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
    """(N,) `Assessment.extended_comfort` of each plan."""
    comfort = np.full(len(scores.status), np.nan)
    rows = np.flatnonzero(scores.status == OK)
    if len(rows) and len(scene.human_poses) >= NUM_POSES:
        states = np.concatenate([scores.events["states"][rows], _human_states(scene, scores.metric)])
        human = np.full(len(rows), len(rows))
        comfort[rows] = extended_comfort(states, np.zeros(len(states)), np.arange(len(rows)), human)
    return comfort


@cache_by_identity
def _human_states(scene: Scene, metric: str) -> np.ndarray:
    """(1, 41, 11) the driven human plan."""
    return score(scene, human_plan(scene)[None], metric=metric).events["states"]


def _feedback(scene: Scene, scores: Scores, row: int, poses: np.ndarray, source: Source) -> Feedback:
    """Findings on the plan (T, 3) in one row of the scores, which are those of `scene`."""
    if scores.status[row] != OK:
        problem = NOT_FINITE if not np.isfinite(poses).all() else NOT_DRIVABLE
        return Feedback(scores.metric, source, float("nan"), False, (), problem=problem)
    findings = tuple(diagnose(scene, scores, row))
    counted = {metric.column for metric in metrics_of(scores.metric) if metric.counts}
    clean = all(finding.passed for finding in findings if finding.metric in counted)
    return Feedback(scores.metric, source, float(scores.score[row]), clean, findings)
