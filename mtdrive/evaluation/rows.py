"""One row per scene, policy and turn: the score of the plan in force after that turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from mtdrive.simulation.assessment import assess
from mtdrive.simulation.baselines import BASELINES
from mtdrive.simulation.scene import Scene

OK, UNPARSED = "ok", "unparsed"


@dataclass(frozen=True)
class PlanRow:
    """A policy's plan of one scene, in force after `turn` (1, 2, ...).

    status: of that turn's own answer: "ok", "unparsed", "stopped" (the episode had ended with an earlier turn) or
    what the scorer found wrong. score, columns: of the newest plan that could be scored; without any, the score is
    0 and columns is empty, and the status tells why.
    """

    token: str
    family: str
    policy: str
    turn: int
    status: str
    score: float
    columns: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredAnswer:
    """One turn of a policy. columns: navsim's sub-metrics, None if the answer gave no plan that can be scored."""

    status: str
    score: float
    columns: Mapping[str, float] | None


def rows_in_force(token: str, family: str, policy: str, answers: Sequence[ScoredAnswer], turns: int) -> list[PlanRow]:
    """Rows for turns 1..turns; an episode that stopped keeps its last plan, a failed answer leaves the one before."""
    rows, score, columns = [], 0.0, {}
    for turn in range(1, turns + 1):
        status = "stopped"
        if turn <= len(answers):
            answer = answers[turn - 1]
            status = answer.status
            if answer.columns is not None:
                score, columns = answer.score, answer.columns
        rows.append(PlanRow(token, family, policy, turn, status, score, columns))
    return rows


def baseline_rows(scene: Scene, family: str, names: Sequence[str], metric: str) -> list[PlanRow]:
    """The baselines' plans, as turn 1."""
    rows = []
    for name in names:
        assessment = assess(scene, BASELINES[name](scene)[None], metric=metric)[0]
        rows.append(PlanRow(scene.token, family, name, 1, assessment.status, assessment.score, assessment.scores))
    return rows


def as_table(rows: Sequence[PlanRow]) -> pd.DataFrame:
    """Rows as a table; the sub-metrics become columns."""
    names = ("token", "family", "policy", "turn", "status", "score")
    fixed = [{name: getattr(row, name) for name in names} for row in rows]
    return pd.concat([pd.DataFrame(fixed), pd.DataFrame([dict(row.columns) for row in rows])], axis=1)
