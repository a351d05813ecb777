"""What an answer is worth in reinforcement learning."""

from __future__ import annotations

from dataclasses import dataclass

from mtdrive.rollout.episode import TurnStatus


@dataclass(frozen=True)
class PdmsReward:
    """The PDM score, in [0, 1], plus `format_bonus`, for a valid trajectory; 0 for a text that holds none.

    The bonus sets a legible plan that crashes apart from an illegible one. A scorer failure never gets here.
    """

    format_bonus: float = 0.05

    def __call__(self, status: TurnStatus, score: float) -> float:
        return score + self.format_bonus if status is TurnStatus.OK else 0.0
