"""The plans of a file to be scored: trajectories, or the turns of an evaluation's episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np

from mtdrive.rollout.episode import Episode, TurnStatus
from mtdrive.rollout.episode_file import read_episodes
from mtdrive.simulation.baselines import INTERVAL, NUM_POSES
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.submission.files import Submission, read_submission

EPISODES = ".jsonl"  # ending of the files of mtdrive evaluate
NO_PLAN = "no_plan"  # status of a row whose scene has no plan so far
Turns = Literal["last", "all"]


def read_plans(path: Path, data_split: str, turns: Turns) -> dict[str, Submission]:
    """The plans of a file, one submission for each turn that is asked for.

    Args:
        path: of any kind that `read_submission` takes, or the episodes.jsonl of an evaluation.
        data_split: that the plans are to be scored on.
        turns: of episodes: the plans in force after the last turn, or after each. A plan stays in force until an
            answer has another that could be scored; before the first, the poses are NaN.

    Returns:
        "" -> the plans, or "turn_1", "turn_2", ... -> the plans after that turn.

    Raises:
        MTDriveError: the file is missing, damaged, or of another split; or turns are asked for where there are none.
    """
    if path.suffix != EPISODES:
        if turns != "last":
            raise MTDriveError(f"turns={turns} is for the {EPISODES} of an evaluation; {path} has no turns.")
        return {"": read_submission(path)}
    header, episodes = read_episodes(path)
    if (recorded := header.scene_set.data_split) != data_split:
        raise MTDriveError(f"{path} has episodes of split={recorded}; they cannot be scored on split={data_split}.")
    tokens = np.array([episode.scene_token for episode in episodes], dtype=np.str_)
    after = {"": header.turns} if turns == "last" else {f"turn_{turn + 1}": turn + 1 for turn in range(header.turns)}
    return {
        name: Submission(tokens, np.stack([_in_force(episode, turn) for episode in episodes]), INTERVAL)
        for name, turn in after.items()
    }


def _in_force(episode: Episode, turn: int) -> np.ndarray:
    """(8, 3) the plan in force after so many turns; NaN without any."""
    plans = [answer.poses for answer in episode.turns[:turn] if answer.status is TurnStatus.OK]
    plan = plans[-1] if plans else None
    return np.full((NUM_POSES, 3), np.nan) if plan is None else plan


def without_plan(submission: Submission) -> np.ndarray:
    """(N,) bool, the rows of episodes that have no plan."""
    return np.isnan(submission.poses).all(axis=(1, 2))
