"""One-stage EPDMS: the score of each frame with two-frame extended comfort (navsim v2.2 `run_pdm_score_one_stage.py`).

The extended comfort of a frame compares its plan with the plan of the previous frame, so both must be scored, with one
trajectory each.
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.metrics.extended_comfort import adjacent_frames, extended_comfort
from mtdrive.simulation.metrics.registry import score_version
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic
from mtdrive.simulation.scoring import OK
from mtdrive.simulation.submission.scoring import DrivenTrajectories, SubmissionScores


def with_extended_comfort(scores: SubmissionScores) -> SubmissionScores:
    """Add two-frame extended comfort to the columns and to the score, if the score version has it.

    It is known for a frame if a frame that was recorded at most 0.55 s earlier in the same log is scored as well. It is
    NaN, and the score goes without it, for other frames, for synthetic scenes, and for all frames if a token repeats.
    """
    if not score_version(scores.metric).has_extended_comfort:
        return scores
    comfort = np.full(len(scores.tokens), np.nan)
    if scores.driven is not None:
        now, previous = adjacent_rows(scores, scores.driven).T
        comfort[now] = extended_comfort(scores.driven.states, scores.driven.times, now, previous)
    return scores.with_extended_comfort(comfort)


def adjacent_rows(scores: SubmissionScores, driven: DrivenTrajectories) -> np.ndarray:
    """(P, 2) rows (now, previous) of recorded frames that follow each other and both have a score.

    driven: the driven trajectories of these scores.
    """
    recorded = [not is_synthetic(token) for token in scores.tokens.tolist()]
    rows = np.flatnonzero((scores.status == OK) & recorded)
    return rows[adjacent_frames(driven.log_names[rows], driven.times[rows])]
