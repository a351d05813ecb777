"""Two-stage EPDMS: recorded frames, then synthetic scenes near the end of their plans (navsim v2.2 navhard).

A frame and its previous frame, 0.5 s earlier, form a group with pairs of synthetic scenes of the same two moments some
4 s later. A Gaussian kernel weights the scenes by the distance from the end of the plan to their start, and their
weighted mean score is multiplied with the score of the frame: a pseudo closed loop (navsim `run_pdm_score.py` and
`SceneAggregator`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.extended_comfort import adjacent_frames, extended_comfort
from mtdrive.simulation.metrics.registry import VERSIONS, score_version
from mtdrive.simulation.scoring import OK
from mtdrive.simulation.submission.scoring import DrivenTrajectories, SubmissionScores

VARIANCE = 0.1  # [m^2] of the Gaussian kernel
NEGLIGIBLE = 1e-8  # sum of kernel values below which no scene is near, and all get the same weight
SCORE = "score"  # name of the final score beside those of the columns


@dataclass(frozen=True)
class Group:
    """Tokens of two successive recorded frames and of the synthetic scenes of their second stage."""

    now: str
    """The later recorded frame."""
    previous: str
    """The frame 0.5 s before it."""
    second_stage: tuple[tuple[str, str], ...]
    """(now, previous) of each pair of synthetic scenes."""

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """(now, previous) of both stages, the recorded frames first."""
        return ((self.now, self.previous), *self.second_stage)


@dataclass(frozen=True)
class TwoStageScores:
    """The scores of all frames and their aggregates over the groups."""

    frames: SubmissionScores
    """N frames with two-frame extended comfort, of which the frames of a pair share one value."""
    weights: np.ndarray
    """(N,) weight of each frame in its stage; 1 for recorded frames."""
    stage_one: dict[str, float]
    """Means of the recorded frames by column, and "score"."""
    stage_two: dict[str, float]
    """Means over the groups of the weighted means of the synthetic scenes, by column, and "score"."""
    combined: float
    """The extended PDM score: mean over the groups of the product of both stages' scores."""


def aggregate(scores: SubmissionScores, groups: Sequence[Group]) -> TwoStageScores:
    """Aggregate scored frames over the groups that they belong to.

    Args:
        scores: of all frames of both stages, one trajectory each.
        groups: of the split; groups of which neither recorded frame was scored are left out.

    Raises:
        MTDriveError: the metric has no two stages, a token occurs more than once, a frame has no score or no group, or
            a group lacks a frame or a second stage, or pairs frames that do not follow each other.
    """
    row_of = {token: row for row, token in enumerate(scores.tokens.tolist())}
    groups = [group for group in groups if group.now in row_of or group.previous in row_of]
    driven = _check(scores, groups, row_of)
    comfort, weights = np.full(len(scores.tokens), np.nan), np.ones(len(scores.tokens))
    for group in groups:
        now, previous = _rows(group, row_of)
        comfort[now] = comfort[previous] = extended_comfort(driven.states, driven.times, now, previous)
        for rows in (now, previous):
            weights[rows[1:]] = kernel_weights(driven.ends[rows[0]], driven.starts[rows[1:]])
    frames = scores.with_extended_comfort(comfort)

    names = [*frames.columns, SCORE]
    values = np.column_stack([*frames.columns.values(), frames.score])
    stage_one, stage_two = np.empty((2, len(groups), 2, len(names)))  # the last axes: now and previous, columns
    for index, group in enumerate(groups):
        for moment, rows in enumerate(_rows(group, row_of)):
            stage_one[index, moment] = values[rows[0]]
            stage_two[index, moment] = np.average(values[rows[1:]], axis=0, weights=weights[rows[1:]])
    return TwoStageScores(
        frames=frames,
        weights=weights,
        stage_one=dict(zip(names, stage_one.mean(axis=(0, 1)).tolist(), strict=True)),
        stage_two=dict(zip(names, stage_two.mean(axis=(0, 1)).tolist(), strict=True)),
        combined=float((stage_one * stage_two)[..., -1].mean()),
    )


def kernel_weights(end: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """(M,) weights of synthetic scenes; their sum is 1.

    Args:
        end: (2,) where the plan of the recorded frame ends, UTM [m].
        starts: (M, 2) where the scenes start, UTM [m].
    """
    kernel = np.exp(-((starts - end) ** 2).sum(axis=1) / (2 * VARIANCE))
    if kernel.sum() <= NEGLIGIBLE:
        return np.full(len(starts), 1 / len(starts))
    return kernel / kernel.sum()


def _rows(group: Group, row_of: dict[str, int]) -> np.ndarray:
    """(2, 1 + M) rows of the frames of now and of previous, the recorded frame first."""
    return np.array([[row_of[token] for token in pair] for pair in group.pairs]).T


def _check(scores: SubmissionScores, groups: Sequence[Group], row_of: dict[str, int]) -> DrivenTrajectories:
    """Refuse what cannot be aggregated; returns the driven trajectories, which must be there."""
    if not score_version(scores.metric).has_extended_comfort:
        able = " or ".join(name for name, version in VERSIONS.items() if version.has_extended_comfort)
        raise MTDriveError(f"{scores.metric} has no two stages; use metric={able}.")
    if scores.driven is None:
        raise MTDriveError("Two stages need one trajectory for each token; a token occurs more than once.")
    if failed := scores.tokens[scores.status != OK].tolist():
        raise MTDriveError(f"Two stages need a score for every frame; {len(failed)} have none: {_some(failed)}.")
    if empty := [group.now for group in groups if not group.second_stage]:
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
    return scores.driven


def _some(tokens: Sequence[str]) -> str:
    return ", ".join(tokens[:3]) + (", ..." if len(tokens) > 3 else "")
