"""What all estimators share."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdvantageConfig:
    """scale: divide by the standard deviation of the group. epsilon: added to it."""

    scale: bool = True
    epsilon: float = 1e-4
