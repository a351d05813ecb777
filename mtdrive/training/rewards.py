"""The reward of an answer in reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass

from mtdrive.rollout.episode import TurnStatus


@dataclass(frozen=True)
class PdmsReward:
    """The PDM score, in [0, 1], plus `format_bonus`, for a valid trajectory; 0 for a text that holds none.

    A scorer failure ends the episode and never gets a reward.
    """

    format_bonus: float = 0.05
    """Tells a valid plan that crashes from a text that holds no plan."""

    def __call__(self, status: TurnStatus, score: float) -> float:
        return score + self.format_bonus if status is TurnStatus.OK else 0.0
