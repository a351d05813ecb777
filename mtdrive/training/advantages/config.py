"""What the estimators can be told."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdvantageConfig:
    """scale: divide by the standard deviation of the group. epsilon: added to it.

    outcome_weight: of the episode's advantage beside the turn's (mtgrpo_outcome). discount: of later gains
    (return_to_go, gigpo). anchor_weight: of the advantage among episodes in the same state beside the episode's;
    anchor_width: rewards that differ by less are the same state (gigpo).
    """

    scale: bool = True
    epsilon: float = 1e-4
    outcome_weight: float = 0.5
    discount: float = 1.0
    anchor_weight: float = 1.0
    anchor_width: float = 0.1
