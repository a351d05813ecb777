"""An episode ready to be drawn: its plans as driven, with their scores, violations and texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from mtdrive.simulation.baselines import BASELINES, INTERVAL
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.structured import Source
from mtdrive.simulation.scene import Scene
from mtdrive.visualization.plan import Plan, Role, assessed_plan
from mtdrive.visualization.records import OK, EpisodeRecord
from mtdrive.visualization.style import plan_colours

REFERENCES = {"human": Role.HUMAN, "pdm_closed": Role.PDM_CLOSED}
AGREEMENT = 1e-6  # between a recorded score and the scene cache's
SAME = 0.01  # a change of the score below this is none
FAULT = 0.95  # a sub-metric below this is something to improve


@dataclass(frozen=True)
class DrawnTurn:
    """One turn of an episode, ready to be drawn."""

    answer: str
    """The planner's text; empty if only its plan is known."""
    status: str
    """"ok", or why the answer gave no score."""
    score: float
    """Score of this turn's own plan in [0, 1], against the recorded traffic; NaN without one."""
    columns: Mapping[str, float]
    """Sub-metrics of the plan by navsim's column name; empty without one."""
    feedback: str
    """Feedback on the plan as the planner read it."""
    colour: str = ""
    """Colour of the plan in the pictures; empty without one."""
    plan: Plan | None = field(default=None, compare=False)
    """The plan as it was driven; None if the answer holds none."""
    name: str = ""
    """As in `TurnRecord`."""


def show_turns(
    scene: Scene, record: EpisodeRecord, metric: str, source: Source, interval: float = INTERVAL
) -> tuple[DrawnTurn, ...]:
    """Drive and score the plans of a record; metric, source: of its feedback, which decides which violation is marked.

    Raises:
        MTDriveError: a score is not the recorded one, so this is not the scene that was recorded.
    """
    planned = [(index, turn.poses) for index, turn in enumerate(record.turns) if turn.poses is not None]
    shown, poses = [index for index, _ in planned], [plan for _, plan in planned]
    assessed = assess(scene, np.stack(poses), interval=interval, metric=metric, source=source) if shown else []
    names = [record.turns[index].name or f"turn {index + 1}" for index in shown]
    plans = [assessed_plan(name, p, a) for name, p, a in zip(names, poses, assessed, strict=True)]
    turns = [DrawnTurn(turn.answer, turn.status, math.nan, {}, turn.feedback, name=turn.name) for turn in record.turns]
    for index, plan, colour, found in zip(shown, plans, plan_colours(plans), assessed, strict=True):
        recorded = record.turns[index].score
        if found.status == OK and recorded is not None and not abs(found.score - recorded) <= AGREEMENT:
            raise MTDriveError(
                f"Turn {index + 1} of {record.name} scores {found.score:.4f} in this scene cache, but {recorded:.4f} "
                "is recorded; point navsim_exp_root to the caches that it was scored with."
            )
        turns[index] = replace(turns[index], score=found.score, columns=found.scores, colour=colour, plan=plan)
        if found.status != OK:
            turns[index] = replace(turns[index], status="invalid_trajectory", columns={})
    return tuple(turns)


def references(scene: Scene, names: Sequence[str], metric: str) -> list[Plan]:
    """The plans of the named baselines (keys of REFERENCES) that the scene has."""
    names = [name for name in names if name != "human" or len(scene.human_poses) >= 8]
    poses = np.array([BASELINES[name](scene) for name in names]).reshape(-1, 8, 3)
    assessments = assess(scene, poses, interval=INTERVAL, metric=metric)
    return [
        assessed_plan(REFERENCES[name].value, plan, assessment, REFERENCES[name])
        for name, plan, assessment in zip(names, poses, assessments, strict=True)
    ]


def in_force(turns: Sequence[DrawnTurn]) -> list[float]:
    """Scores of the plan in force after each turn: an answer without plan leaves the one before, or 0."""
    scores, last = [], 0.0
    for turn in turns:
        last = turn.score if math.isfinite(turn.score) else last
        scores.append(last)
    return scores


def change(turns: Sequence[DrawnTurn]) -> str:
    """Whether the score "gained", "lost" or stayed the "same" from the first turn to the last."""
    scores = in_force(turns) or [0.0]
    difference = scores[-1] - scores[0]
    return "same" if abs(difference) < SAME else "gained" if difference > 0 else "lost"
