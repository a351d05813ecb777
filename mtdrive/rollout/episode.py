"""Records of multi-turn episodes: what was said, how it was scored, and where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from mtdrive.simulation.feedback.structured import Feedback


class TurnStatus(StrEnum):
    """How an answer fared; the values are what logs count."""

    OK = "ok"
    PARSE_ERROR = "parse_error"  # no trajectory in the text
    INVALID_TRAJECTORY = "invalid_trajectory"  # a trajectory that the scorer refuses
    SCORER_ERROR = "scorer_error"  # the scorer raised: says nothing about the answer


class EpisodeStatus(StrEnum):
    """How an episode ended."""

    COMPLETED = "completed"  # with a clean plan
    TRUNCATED = "truncated"  # at the last turn allowed
    ERROR = "error"  # by a failure that is not the planner's; no reward of it counts


@dataclass(frozen=True)
class Turn:
    """One answer and what came of it.

    delta_ids: (d,) int64, the tokens put before the answer since the last one: the whole prompt in the first turn,
    later the feedback with the marks around it. completion_ids: (n,) int64 as sampled, with the stop token unless the
    answer was cut off. log_probs: (n,) float32, of each of them under the distribution they were sampled from.
    text: the answer. status: see TurnStatus. error: why it does not parse, or what the scorer raised.
    poses: (8, 3) x, y [m], heading [rad], ego frame at t0. score, scores: true PDM score and sub-metrics, by the log.
    clean: nothing to object to, by the feedback's source. feedback: structured. feedback_text: as the planner reads it.
    extended_comfort: of the plan against the human's drive, see Assessment.
    reward: of this turn; NaN after a scorer error.
    """

    delta_ids: np.ndarray
    completion_ids: np.ndarray
    log_probs: np.ndarray
    text: str
    status: TurnStatus
    reward: float
    feedback_text: str
    error: str | None = None
    poses: np.ndarray | None = None
    score: float | None = None
    scores: Mapping[str, float] = field(default_factory=dict)
    extended_comfort: float = np.nan
    clean: bool = False
    feedback: Feedback | None = None


@dataclass(frozen=True)
class Episode:
    """A scene's episode. provenance: what made it, e.g. planner, metric, feedback source, seed, step."""

    scene_token: str
    image_hash: str
    turns: tuple[Turn, ...]
    status: EpisodeStatus
    provenance: Mapping[str, str | int | float] = field(default_factory=dict)
