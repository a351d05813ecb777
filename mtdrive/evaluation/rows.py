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
STOPPED = "stopped"  # status of a turn after the end of its episode
PLANNER = "planner"  # name of the policy that is evaluated, beside the baselines
KEY_COLUMNS = ("token", "family", "policy", "turn", "status", "score")  # of the table, beside the sub-metrics


@dataclass(frozen=True)
class PlanRow:
    """A policy's plan of one scene, in force after one turn: the newest plan that could be scored."""

    token: str
    """Token of the scene."""
    family: str
    """Family of the scene; empty if unknown."""
    policy: str
    """PLANNER, or the name of a baseline."""
    turn: int
    """1, 2, ..."""
    status: str
    """Value of the TurnStatus of the turn's own answer, or STOPPED."""
    score: float
    """Score of the plan against the log; 0 if no answer so far could be scored."""
    columns: Mapping[str, float] = field(default_factory=dict)
    """Its sub-metrics by navsim's column names; empty if no answer so far could be scored."""


def episode_rows(episode: Episode, family: str, turns: int) -> list[PlanRow]:
    """Rows for turns 1..turns; an episode that stopped keeps its last plan, a failed answer leaves the one before.

    Raises:
        RuntimeError: the scorer failed, which says nothing about the planner.
    """
    if episode.status is EpisodeStatus.ERROR:
        raise RuntimeError(f"The scorer failed on scene {episode.scene_token}: {episode.turns[-1].error}")
    rows, value = [], 0.0
    columns: Mapping[str, float] = {}
    for turn in range(1, turns + 1):
        status = STOPPED
        if turn <= len(episode.turns):
            answer = episode.turns[turn - 1]
            status = answer.status.value
            if answer.status is TurnStatus.OK:
                assert answer.score is not None, f"turn {turn} of {episode.scene_token} is ok, but has no score"
                value, columns = answer.score, answer.scores
        rows.append(PlanRow(episode.scene_token, family, PLANNER, turn, status, value, columns))
    return rows


def baseline_rows(scene: Scene, family: str, names: Sequence[str], metric: str) -> list[PlanRow]:
    """The plans of the baselines with these names, as turn 1."""
    rows = []
    for name in names:
        scores = score(scene, BASELINES[name](scene)[None], metric=metric)
        columns = {column: float(values[0]) for column, values in scores.columns.items()}
        rows.append(PlanRow(scene.token, family, name, 1, str(scores.status[0]), float(scores.score[0]), columns))
    return rows


def as_table(rows: Sequence[PlanRow]) -> pd.DataFrame:
    """Rows as a table: KEY_COLUMNS, then one column for each sub-metric."""
    keys = [{name: getattr(row, name) for name in KEY_COLUMNS} for row in rows]
    return pd.concat([pd.DataFrame(keys), pd.DataFrame([dict(row.columns) for row in rows])], axis=1)
