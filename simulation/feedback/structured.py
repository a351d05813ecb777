"""The structure of feedback. Frame: the ego rear-axle frame at t0 (x forward, y left); times in seconds from t0."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Source = Literal["privileged", "perceived"]
SOURCES: tuple[Source, ...] = ("privileged", "perceived")


class ChangeKind(StrEnum):
    """How a plan can be changed."""

    TRAVEL = "travel"
    """Travel farther (+) or less far (-) along the same path."""
    SHIFT = "shift"
    """Shift the path to its left (+) or right (-)."""


@dataclass(frozen=True)
class Change:
    """A change of the plan that was simulated and scored like the plan itself, and does better."""

    kind: ChangeKind
    """What to change."""
    amount: float
    """By how much [m], signed, at `time`; `feedback.paths` defines the plan until then."""
    time: float
    """When the change is complete [s]."""
    position: tuple[float, float]
    """x, y [m] of the changed plan's rear axle at that time."""
    score: float
    """Score of the changed plan, in the traffic that the feedback's source knows."""


@dataclass(frozen=True)
class Finding:
    """What one sub-metric says about a plan. Fields that do not apply are None."""

    metric: str
    """navsim's column name of the sub-metric."""
    passed: bool
    """Whether there is nothing to improve."""
    value: float
    """The sub-metric, in [0, 1]."""
    time: float | None = None
    """When the plan first violates it [s]."""
    object_class: str | None = None
    """Class of the object that the plan meets, by NAVSIM's name, such as "vehicle"."""
    object_token: str | None = None
    """Track token of that object."""
    object_position: tuple[float, float] | None = None
    """x, y [m] of its box centre at `time`."""
    ego_position: tuple[float, float] | None = None
    """x, y [m] of the ego's rear axle at `time`."""
    quantity: str | None = None
    """What `measured` and `limit` are, such as "progress" or "lateral acceleration"; in SI units."""
    measured: float | None = None
    """Value of that quantity for this plan."""
    limit: float | None = None
    """Value that it should keep to."""
    side: Literal["left", "right"] | None = None
    """On which side the plan leaves the road."""
    change: Change | None = None
    """The change that improves this sub-metric best and costs no score."""


@dataclass(frozen=True)
class Feedback:
    """All feedback on one plan."""

    metric: str
    """Score version, such as "pdms_v1"."""
    source: Source
    """Traffic that the plan was simulated in: the log's own future ("privileged"), or the detections at t0 extrapolated
    at constant velocity ("perceived")."""
    score: float
    """Final score in that traffic, in [0, 1]; NaN for an invalid plan."""
    clean: bool
    """Whether every sub-metric that counts in the score passes."""
    findings: tuple[Finding, ...]
    """One for each sub-metric, the most important first; empty for an invalid plan."""
    changes: tuple[Change, ...] = ()
    """What to do: at most one change of each kind, the later on top of the earlier, with the positions of the plan
    after all of them. Empty if the plan is clean, if nothing that was tried helps, or if no search was asked for."""
    steps: tuple[Change, ...] = ()
    """The changes again, second by second: what to have changed by then, and where the changed plan is. Empty unless
    asked for."""
    problem: str | None = None
    """Why the plan is invalid; None if it is valid."""

    @property
    def violations(self) -> tuple[Finding, ...]:
        """The findings that have not passed, the most important first."""
        return tuple(finding for finding in self.findings if not finding.passed)

    def finding(self, metric: str) -> Finding:
        """The finding of one sub-metric.

        Raises:
            KeyError: there is none.
        """
        for finding in self.findings:
            if finding.metric == metric:
                return finding
        raise KeyError(metric)
