"""EPDMS in two stages: recorded frames, then synthetic scenes that stand for where the plan led (navsim v2.2 navhard).

A frame and the frame before it, 0.5 s earlier, form a group with pairs of synthetic scenes of the same two moments some
4 s later. The scenes are weighted by how near they start to the end of the plan, by a Gaussian kernel, and their
weighted mean is multiplied with the score of the frame: a pseudo closed loop (navsim `run_pdm_score.py` and
`SceneAggregator`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.extended_comfort import EXTENDED_COMFORT, adjacent_frames, extended_comfort
from mtdrive.simulation.metrics.registry import final_score, score_version
from mtdrive.simulation.scoring import OK
from mtdrive.simulation.submission.scoring import SubmissionScores

VARIANCE = 0.1  # [m^2] of the Gaussian kernel
NEGLIGIBLE = 1e-8  # sum of weights below which no scene is near and all count alike
SCORE = "score"


@dataclass(frozen=True)
class Group:
    """Tokens of a recorded frame, of the frame before it, and of the pairs (now, previous) of its second stage."""

    now: str
    previous: str
    second: tuple[tuple[str, str], ...]

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(now, previous) of both stages, the recorded first."""
        return ((self.now, self.previous), *self.second)


@dataclass(frozen=True)
class TwoStageScores:
    """Frames and what they come to.

    frames: with two-frame extended comfort in the columns and in the score; a pair shares one value.
    weights: (N,) of each frame in its stage.
    stage_one, stage_two: mean over the groups by column, and "score". combined: mean over the groups of the products of
    both stages' scores.
    """

    frames: SubmissionScores
    weights: np.ndarray
    stage_one: dict[str, float]
    stage_two: dict[str, float]
    combined: float


def aggregate(scores: SubmissionScores, groups: Sequence[Group]) -> TwoStageScores:
    """Aggregate scored frames; groups without a frame among them are left out.

    Raises:
        MTDriveError: the metric has no two stages, a token occurs more than once, a frame has no score or no group, or
            a group lacks a frame or a second stage, or pairs frames that do not follow each other.
    """
    row_of = {token: row for row, token in enumerate(scores.tokens.tolist())}
    groups = [group for group in groups if group.now in row_of or group.previous in row_of]
    _check(scores, groups, row_of)
    comfort, weights = np.full(len(scores.tokens), np.nan), np.ones(len(scores.tokens))
    drives = scores.driven
    for group in groups:
        now, previous = _rows(group, row_of)
        comfort[now] = comfort[previous] = extended_comfort(drives.states, drives.times, now, previous)
        for rows in (now, previous):
            weights[rows[1:]] = kernel_weights(drives.ends[rows[0]], drives.starts[rows[1:]])
    columns = {**scores.columns, EXTENDED_COMFORT: comfort}
    frames = replace(scores, columns=columns, score=final_score(scores.metric, columns))

    names = [*columns, SCORE]
    values = np.column_stack([*columns.values(), frames.score])
    one, two = np.empty((2, len(groups), 2, len(names)))  # the last axes: now and previous, columns
    for index, group in enumerate(groups):
        for moment, rows in enumerate(_rows(group, row_of)):
            one[index, moment] = values[rows[0]]
            two[index, moment] = np.average(values[rows[1:]], axis=0, weights=weights[rows[1:]])
    return TwoStageScores(
        frames=frames,
        weights=weights,
        stage_one=dict(zip(names, one.mean(axis=(0, 1)).tolist(), strict=True)),
        stage_two=dict(zip(names, two.mean(axis=(0, 1)).tolist(), strict=True)),
        combined=float((one * two)[..., -1].mean()),
    )


def kernel_weights(end: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(M,) weights, with sum 1, of scenes that start at starts (M, 2) after a plan that ends at end (2,) [m]."""
    kernel = np.exp(-((starts - end) ** 2).sum(axis=1) / (2 * VARIANCE))
    if kernel.sum() <= NEGLIGIBLE:
        return np.full(len(starts), 1 / len(starts))
    return kernel / kernel.sum()


def _rows(group: Group, row_of: dict[str, int]) -> np.ndarray:
    """(2, 1 + M) rows of the frames of now and of previous, the recorded first."""
    return np.array([[row_of[token] for token in pair] for pair in group.pairs]).T


def _check(scores: SubmissionScores, groups: Sequence[Group], row_of: dict[str, int]) -> None:
    if not score_version(scores.metric).extended_comfort_weight:
        raise MTDriveError(f"{scores.metric} has no two stages; use metric=epdms_v2.")
    if scores.driven is None:
        raise MTDriveError("Two stages need one trajectory for each token; a token occurs more than once.")
    if failed := scores.tokens[scores.status != OK].tolist():
        raise MTDriveError(f"Two stages need a score for every frame; {len(failed)} have none: {_some(failed)}.")
    if empty := [group.now for group in groups if not group.second]:
        raise MTDriveError(f"The mapping has no second stage for {_some(empty)}.")
    tokens = [token for group in groups for pair in group.pairs for token in pair]
    if missing := [token for token in tokens if token not in row_of]:
        raise MTDriveError(f"{len(missing)} frames of the mapping have no trajectory: {_some(missing)}.")
    if unmapped := sorted(row_of.keys() - set(tokens)):
        raise MTDriveError(f"{len(unmapped)} trajectories are of frames not in the mapping: {_some(unmapped)}.")
    if len(tokens) > len(set(tokens)):
        repeated = sorted({token for token in tokens if tokens.count(token) > 1})
        raise MTDriveError(f"The mapping names {len(repeated)} frames more than once: {_some(repeated)}.")
    for now, previous in (pair for group in groups for pair in group.pairs):
        rows = [row_of[now], row_of[previous]]
        if adjacent_frames(scores.driven.log_names[rows], scores.driven.times[rows]).tolist() != [[0, 1]]:
            raise MTDriveError(f"The mapping pairs {now} with {previous}, which does not start just before it.")


def _some(tokens: Sequence[str]) -> str:
    return ", ".join(tokens[:3]) + (", ..." if len(tokens) > 3 else "")
