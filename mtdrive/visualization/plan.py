"""What a picture shows of a plan. Frame: the ego rear-axle frame at t0."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.feedback.assessment import Assessment
from mtdrive.simulation.geometry.frames import box_corners, translate_forward
from mtdrive.simulation.metrics.registry import all_metrics, score_version
from mtdrive.simulation.scene import NUM_STEPS, STEP, Scene


class Role(Enum):
    """Whose plan it is; decides its colour and line."""

    TURN = "turn"
    HUMAN = "human"
    PDM_CLOSED = "PDM-Closed"


@dataclass(frozen=True)
class Violation:
    """Where a plan goes wrong."""

    name: str
    """What is violated, as a label."""
    time: float
    """Time after t0 [s]."""
    ego: tuple[float, float]
    """(x, y) [m] of the ego's rear axle at that time."""
    other: tuple[float, float] | None = None
    """(x, y) [m] of the centre of the object that is met; None if there is none."""
    side: Literal["left", "right"] | None = None
    """Side of the car that leaves the road; None if none does."""


@dataclass(frozen=True)
class Plan:
    """A plan to draw."""

    label: str
    """Short name, such as "turn 2"."""
    poses: np.ndarray
    """(T, 3) float64 planned x [m], y [m], heading [rad], every 0.5 or 0.1 s."""
    states: np.ndarray | None = None
    """(41, 11) states of the simulated drive, every 0.1 s from t0 on; None if the plan was not simulated."""
    score: float = float("nan")
    """Score in [0, 1]; NaN if it has none."""
    violation: Violation | None = None
    """The violation to mark; None if there is none to mark."""
    role: Role = Role.TURN
    """Whose plan it is."""
    score_title: str = "score"
    """What the score is called, such as "PDMS"."""

    @property
    def path(self) -> np.ndarray:
        """(N, 3) rear-axle poses from t0 on: as driven, or else as planned; up to the first that is not finite."""
        path = np.vstack([np.zeros(3), self.poses]) if self.states is None else np.asarray(self.states)[:, :3]
        finite = np.isfinite(path).all(axis=1)
        return path if finite.all() else path[: int(np.argmin(finite))]

    @property
    def summary(self) -> str:
        """One line: label, score, violation."""
        parts = [self.label]
        if np.isfinite(self.score):
            parts.append(f"{self.score_title} {self.score:.2f}")
        if self.violation is not None:
            parts.append(f"{self.violation.name} at {self.violation.time:.1f} s")
        return "  ".join(parts)


def assessed_plan(label: str, poses: np.ndarray, assessment: Assessment, role: Role = Role.TURN) -> Plan:
    """A plan with what its assessment says: the most important of the violations that have a place."""
    violation = None
    for found in assessment.feedback.violations:  # most important first
        if found.time is not None and found.ego_position is not None:
            name = all_metrics()[found.metric].label
            violation = Violation(name, found.time, found.ego_position, found.object_position, found.side)
            break
    states = assessment.states if np.isfinite(assessment.states).all() else None
    title = score_version(assessment.feedback.metric).title
    return Plan(label, np.asarray(poses, dtype=np.float64), states, assessment.score, violation, role, title)


def violation_place(
    scene: Scene, plan: Plan, violation: Violation, metric: str
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray]:
    """The two boxes of a plan's violation and the spot to mark.

    Returns the corners (4, 2) of the ego then, if the plan was driven; those of the object met, if there is one; and
    the point (2,) between them where they touch or are nearest, or the front corner that leaves the road.
    """
    step = round(violation.time / STEP)
    ego = other = None
    if plan.states is not None:
        ego = ego_corners(np.asarray(plan.states)[min(step, len(plan.states) - 1), :3])
    if violation.other is not None:
        observation = scene.observations[metric]
        step = min(step, len(observation.poses) - 1)
        apart = np.hypot(*(observation.poses[step, :, :2] - violation.other).T)
        track = int(np.argmin(np.where(observation.present[step], apart, np.inf)))
        heading = observation.poses[step, track, 2]
        other = box_corners(np.array([*violation.other, heading]), observation.size[track])
    if ego is not None and violation.side is not None:
        return ego, other, ego[0 if violation.side == "left" else 3]
    if ego is None or other is None:
        return ego, other, np.array(violation.ego if other is None else violation.other)
    first, second = shapely.polygons(ego), shapely.polygons(other)
    reach = 0.5 * shapely.distance(first, second) + 0.1  # [m] at which the two, grown, just overlap
    common = shapely.intersection(shapely.buffer(first, reach), shapely.buffer(second, reach))
    return ego, other, shapely.get_coordinates(shapely.centroid(common))[0]


def pose_at(plan: Plan, step: int) -> np.ndarray:
    """(3,) where a plan is `step` tenths of a second after t0; one that is not finite to its end stops before."""
    path = plan.path
    intervals = len(plan.poses) if plan.states is None else len(plan.states) - 1
    at = min(step / (NUM_STEPS - 1) * intervals, len(path) - 1)
    columns = (path[:, 0], path[:, 1], np.unwrap(path[:, 2]))
    return np.array([np.interp(at, np.arange(len(path)), values) for values in columns])


def ego_corners(pose: np.ndarray) -> np.ndarray:
    """(4, 2) corners of the ego box for a rear-axle pose (3,)."""
    centre = translate_forward(pose, vehicle.REAR_AXLE_TO_CENTER)
    return box_corners(centre, np.array([vehicle.LENGTH, vehicle.WIDTH]))


def swept_edges(path: np.ndarray, width: float = vehicle.WIDTH) -> tuple[np.ndarray, np.ndarray]:
    """Left and right edge (N + 1, 2) of the ground that the car covers along rear-axle poses (N, 3).

    The last point of each edge is the front bumper's corner at the end of the path.
    """
    last = path[-1].copy()
    last[:2] += vehicle.REAR_AXLE_TO_FRONT * np.array([np.cos(last[2]), np.sin(last[2])])
    path = np.vstack([path, last])
    side = 0.5 * width * np.column_stack([-np.sin(path[:, 2]), np.cos(path[:, 2])])
    return path[:, :2] + side, path[:, :2] - side
