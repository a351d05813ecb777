"""Tables of results as navsim's own scripts write them, for tools that read those.

navsim's rows come in no particular order; ours have the order of the submission.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic
from mtdrive.simulation.scoring import OK
from mtdrive.simulation.submission.scoring import SubmissionScores
from mtdrive.simulation.submission.two_stage import SCORE, TwoStageScores


def one_stage_table(scores: SubmissionScores) -> pd.DataFrame:
    """A row for each trajectory, and last their average over the valid ones.

    As navsim v1.1 `run_pdm_score.py` and v2.2 `run_pdm_score_one_stage.py`.
    """
    table = _with_tokens(scores, {**scores.columns, SCORE: scores.score})
    average = table.drop(columns=["token", "valid"]).mean()
    table.loc[len(table)] = {"token": score_version(scores.metric).average_row, "valid": table.valid.all(), **average}
    return table


def two_stage_table(result: TwoStageScores) -> pd.DataFrame:
    """A row for each trajectory, with columns of its own for each stage, and last three rows with the aggregates.

    As navsim v2.2 `run_pdm_score.py`.
    """
    frames = result.frames
    second = np.array([is_synthetic(token) for token in frames.tokens.tolist()])
    stages = {"stage_one": (~second, result.stage_one), "stage_two": (second, result.stage_two)}
    columns: dict[str, np.ndarray] = {}
    means: dict[str, dict[str, float]] = {}
    for stage, (rows, aggregates) in stages.items():
        columns |= {f"{name}_{stage}": np.where(rows, values, np.nan) for name, values in frames.columns.items()}
        means[stage] = {f"{name}_{stage}": value for name, value in aggregates.items() if name != SCORE}
    table = _with_tokens(frames, {**columns, SCORE: frames.score})
    for stage, score, values in (
        ("stage_one", result.stage_one[SCORE], means["stage_one"]),
        ("stage_two", result.stage_two[SCORE], means["stage_two"]),
        ("combined", result.combined, means["stage_one"] | means["stage_two"]),
    ):
        row = {"token": f"extended_pdm_score_{stage}", "valid": True, SCORE: score, **values}
        table.loc[len(table)] = {name: row.get(name, np.nan) for name in table.columns}
    return table


def _with_tokens(scores: SubmissionScores, columns: dict[str, np.ndarray]) -> pd.DataFrame:
    return pd.DataFrame({"token": scores.tokens, "valid": scores.status == OK, **columns})
