"""Multi-turn episodes: what the planner answered, how each plan was scored, and what the planner was told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from mtdrive.simulation.feedback.structured import Feedback


class TurnStatus(StrEnum):
    """What came of an answer; the values are what logs count."""

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
    """One answer of the planner and what came of it.

    An episode file may leave the tokens out; the three arrays of a turn read from such a file are empty.
    """

    delta_ids: np.ndarray
    """(d,) int64 tokens put before the answer since the last one: in turn 1 the whole prompt, later the feedback."""
    completion_ids: np.ndarray
    """(n,) int64 tokens of the answer as sampled, with the stop token unless the answer was cut off."""
    log_probs: np.ndarray
    """(n,) float32 log-probabilities of `completion_ids` under the distribution that they were sampled from."""
    text: str
    """The answer, decoded, without special tokens."""
    status: TurnStatus
    """What came of the answer."""
    reward: float
    """Reward of this turn; NaN after a scorer error."""
    feedback_text: str
    """Feedback on the plan as the planner reads it; empty after a scorer error."""
    error: str | None = None
    """Why the answer holds no plan, why the scorer refused the plan, or what the scorer raised; None if all is well."""
    poses: np.ndarray | None = None
    """(8, 3) float64 plan: x [m], y [m], heading [rad] in the ego frame at t0; None if the answer does not parse."""
    score: float = np.nan
    """PDM score of the plan in [0, 1], simulated against the recorded traffic; NaN unless the status is OK."""
    scores: Mapping[str, float] = field(default_factory=dict)
    """Sub-metrics of the plan by navsim's column name; empty without a plan."""
    extended_comfort: float = np.nan
    """1 if the plan drives as evenly as the human, else 0 (see `Assessment`); NaN where that is not known."""
    clean: bool = False
    """Whether the feedback found nothing to improve."""
    feedback: Feedback | None = None
    """The feedback before it was put into words; None without a plan, and in episodes read from a file."""
    weights_version: int | None = None
    """Optimizer step whose weights sampled the answer; None outside training."""


@dataclass(frozen=True)
class Episode:
    """One multi-turn episode in one scene."""

    scene_token: str
    """Token of the scene."""
    image_hash: str
    """Content hash of the scene's front image."""
    turns: tuple[Turn, ...]
    """The turns, first to last; at least one."""
    status: EpisodeStatus
    """How the episode ended."""
    family: str = ""
    """Family of the scene, such as "cut_in"; empty if it is not known."""
