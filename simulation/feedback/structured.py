"""The structure of feedback. Frame: the ego rear-axle frame at t0 (x ahead, y left); times in seconds from t0."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Source = Literal["privileged", "perceived"]
SOURCES: tuple[Source, ...] = ("privileged", "perceived")


class ChangeKind(StrEnum):
    """What a planner can do to a plan."""

    TRAVEL = "travel"  # cover more (+) or less (-) distance along the same path
    SHIFT = "shift"  # move the path to its left (+) or right (-)


@dataclass(frozen=True)
class Change:
    """A change of the plan that has been tried: simulated and scored like the plan itself, it does better.

    amount: [m] signed, reached at `time` [s]; `feedback.paths` defines the plan in between.
    position: (x, y) [m] of the changed plan (rear axle) at that time.
    score: of the changed plan, under the observation that the feedback comes from.
    """

    kind: ChangeKind
    amount: float
    time: float
    position: tuple[float, float]
    score: float


@dataclass(frozen=True)
class Finding:
    """What one sub-metric says about a plan. Fields that do not apply are None.

    metric: navsim's column name. passed: nothing to improve. value: the sub-metric, in [0, 1].
    time: [s] first violation. object_class: a NAVSIM class name, such as "vehicle". object_token: its track token.
    object_position: (x, y) [m] of its box centre at that time. ego_position: of the ego's rear axle.
    quantity: what `measured` and `limit` are, for instance "progress" or "lateral acceleration"; SI units.
    side: "left" or "right", where the plan leaves the road.
    change: what improves this sub-metric best and costs no score.
    """

    metric: str
    passed: bool
    value: float
    time: float | None = None
    object_class: str | None = None
    object_token: str | None = None
    object_position: tuple[float, float] | None = None
    ego_position: tuple[float, float] | None = None
    quantity: str | None = None
    measured: float | None = None
    limit: float | None = None
    side: Literal["left", "right"] | None = None
    change: Change | None = None


@dataclass(frozen=True)
class Feedback:
    """Everything that is told about one plan.

    metric: "pdms_v1" or "epdms_v2". source: whose traffic the plan met, the log's own future ("privileged") or
    the detections at t0 extrapolated at constant velocity ("perceived"). score: the score under that traffic.
    clean: nothing left to improve that counts in the score.
    findings: most important first.
    changes: what to do, at most one change of each kind, the later on top of the earlier (positions are those of the
    plan with all of them); empty if the plan is clean or nothing that was tried helps.
    steps: the changes again, second by second: what to have changed by then, and where the changed plan is; empty
    unless asked for.
    problem: why the plan could not be simulated (then score is nan and there are no findings).
    """

    metric: str
    source: Source
    score: float
    clean: bool
    findings: tuple[Finding, ...]
    changes: tuple[Change, ...] = ()
    steps: tuple[Change, ...] = ()
    problem: str | None = None

    @property
    def violations(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.passed)

    def finding(self, metric: str) -> Finding:
        """The finding of one sub-metric; KeyError if there is none."""
        for finding in self.findings:
            if finding.metric == metric:
                return finding
        raise KeyError(metric)
