"""Tables of results as navsim's own scripts write them, for everything that reads those."""

from __future__ import annotations

import pandas as pd

from mtdrive.simulation.scoring import OK
from mtdrive.simulation.split_scoring import SubmissionScores

AVERAGE = {"pdms_v1": "average", "epdms_v2": "average_all_frames"}


def one_stage_table(scores: SubmissionScores) -> pd.DataFrame:
    """A row for each trajectory, and last their average over the valid ones.

    As navsim v1.1 `run_pdm_score.py` and v2.2 `run_pdm_score_one_stage.py`, whose rows come in no particular order;
    these have the order of the submission.
    """
    table = frame_table(scores)
    average = table.drop(columns=["token", "valid"]).mean()
    table.loc[len(table)] = {"token": AVERAGE[scores.metric], "valid": table.valid.all(), **average}
    return table


def frame_table(scores: SubmissionScores) -> pd.DataFrame:
    """A row for each trajectory: token, valid, sub-metrics, score."""
    columns = {"token": scores.tokens, "valid": scores.status == OK, **scores.columns, "score": scores.score}
    return pd.DataFrame(columns)
