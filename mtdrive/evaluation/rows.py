"""One row per scene, policy and turn: the score of the plan in force after that turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from mtdrive.rollout.episode import Episode, EpisodeStatus, TurnStatus
from mtdrive.simulation.baselines import BASELINES
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import score

OK = TurnStatus.OK.value
UNPARSED = TurnStatus.PARSE_ERROR.value
STOPPED = "stopped"
PLANNER = "planner"


@dataclass(frozen=True)
class PlanRow:
    """A policy's plan of one scene, in force after `turn` (1, 2, ...).

    status: of that turn's own answer (a TurnStatus), or "stopped" where the episode had ended before. score, columns:
    of the newest plan that could be scored, by the log; without any, the score is 0 and columns is empty, and the
    status tells why.
    """

    token: str
    family: str
    policy: str
    turn: int
    status: str
    score: float
    columns: Mapping[str, float] = field(default_factory=dict)


def episode_rows(episode: Episode, family: str, turns: int) -> list[PlanRow]:
    """Rows for turns 1..turns; an episode that stopped keeps its last plan, a failed answer leaves the one before.

    Raises:
        RuntimeError: the scorer failed, which says nothing about the planner.
    """
    if episode.status is EpisodeStatus.ERROR:
        raise RuntimeError(f"The scorer failed on scene {episode.scene_token}: {episode.turns[-1].error}")
    rows, value, columns = [], 0.0, {}
    for turn in range(1, turns + 1):
        status = STOPPED
        if turn <= len(episode.turns):
            answer = episode.turns[turn - 1]
            status = answer.status.value
            if answer.status is TurnStatus.OK:
                value, columns = answer.score, answer.scores
        rows.append(PlanRow(episode.scene_token, family, PLANNER, turn, status, value, columns))
    return rows


def baseline_rows(scene: Scene, family: str, names: Sequence[str], metric: str) -> list[PlanRow]:
    """The baselines' plans, as turn 1."""
    rows = []
    for name in names:
        scores = score(scene, BASELINES[name](scene)[None], metric=metric)
        columns = {column: float(values[0]) for column, values in scores.columns.items()}
        rows.append(PlanRow(scene.token, family, name, 1, str(scores.status[0]), float(scores.score[0]), columns))
    return rows


def as_table(rows: Sequence[PlanRow]) -> pd.DataFrame:
    """Rows as a table; the sub-metrics become columns."""
    names = ("token", "family", "policy", "turn", "status", "score")
    fixed = [{name: getattr(row, name) for name in names} for row in rows]
    return pd.concat([pd.DataFrame(fixed), pd.DataFrame([dict(row.columns) for row in rows])], axis=1)
