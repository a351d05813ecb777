"""EPDMS over the frames of logs: each frame's score with two-frame extended comfort, where the frame before is known.

As navsim v2.2 `run_pdm_score_one_stage.py` does it. The comfort of a frame compares its plan with the plan of the frame
before, so both must be scored, and which plans follow each other must be clear.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mtdrive.simulation.metrics.extended_comfort import EXTENDED_COMFORT, adjacent_frames, extended_comfort
from mtdrive.simulation.metrics.registry import final_score, score_version
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic
from mtdrive.simulation.scoring import OK
from mtdrive.simulation.submission.scoring import SubmissionScores


def with_extended_comfort(scores: SubmissionScores) -> SubmissionScores:
    """Add two-frame extended comfort to the columns and to the score, for a version that has it.

    A frame has it if a frame that was recorded at most 0.55 s before it in the same log is scored as well. The others,
    synthetic scenes, and all frames if a token occurs more than once have NaN, and a score without it.
    """
    if not score_version(scores.metric).extended_comfort_weight:
        return scores
    comfort = np.full(len(scores.tokens), np.nan)
    if scores.driven is not None:
        now, previous = adjacent_rows(scores).T
        comfort[now] = extended_comfort(scores.driven.states, scores.driven.times, now, previous)
    columns = {**scores.columns, EXTENDED_COMFORT: comfort}
    return replace(scores, columns=columns, score=final_score(scores.metric, columns))


def adjacent_rows(scores: SubmissionScores) -> np.ndarray:
    """(P, 2) rows (now, previous) of adjacent frames with a score, without synthetic scenes."""
    recorded = [not is_synthetic(token) for token in scores.tokens.tolist()]
    rows = np.flatnonzero((scores.status == OK) & recorded)
    return rows[adjacent_frames(scores.driven.log_names[rows], scores.driven.times[rows])]
