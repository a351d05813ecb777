"""Parameters of the advantage estimators."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdvantageConfig:
    """Parameters of all estimators; each reads those that concern it."""

    scale: bool = True
    """Divide by the standard deviation of the group."""

    epsilon: float = 1e-4
    """Added to the standard deviation; in units of the reward."""

    outcome_weight: float = 0.5
    """Of the episode's advantage beside the turn's (mtgrpo_outcome)."""

    discount: float = 1.0
    """Of later gains, in [0, 1] for each turn (return_to_go, gigpo)."""

    anchor_weight: float = 1.0
    """Of the advantage among episodes in the same state beside the episode's (gigpo)."""

    anchor_width: float = 0.1
    """Rewards before a turn that differ by less than this belong to the same state (gigpo)."""
