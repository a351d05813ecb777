"""What `configs/recipe` can say. Imports no registry, so that a wrong value is refused at once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from mtdrive.simulation.errors import MTDriveError

COUNTS = ("one_turn", "two_turns", "three_turns", "four_turns", "understanding", "comparison")
MOST = 1000  # samples of a kind and scene
MOST_DECIMALS = 15  # of a float64


@dataclass(frozen=True)
class RecipeSettings:
    """How many samples of each kind a scene gives, and from what plans; see `configs/recipe`."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "strict": True}

    one_turn: int
    """Single-turn planning samples of a scene."""

    two_turns: int
    """Refinement samples of two turns; fewer where a scene has no such plans, as for all kinds below."""

    three_turns: int
    """Refinement samples of three turns."""

    four_turns: int
    """Refinement samples of four turns."""

    understanding: int
    """Questions about one plan."""

    comparison: int
    """Questions about two plans."""

    flaws: Mapping[str, float]
    """Source of flawed plans -> its share."""

    perturbations: Mapping[str, float]
    """Perturbation -> its share among the plans of the source `perturbed`."""

    metrics: Mapping[str, float] | None
    """navsim column of a sub-metric -> weight with which plans that break it are drawn; None: all equally."""

    corrections: Mapping[str, float]
    """Source of corrections -> how far it may fall short of the expert's score. They are tried in this order, then the
    expert."""

    families: Mapping[str, float]
    """Scenario family -> factor on the numbers of samples of its scenes; 1 for families that are not named."""

    decimals: int | None
    """Decimals that plans are rounded to before they are scored, so that their text is what was scored; None for no
    rounding."""

    def __post_init__(self) -> None:
        """Raise MTDriveError for impossible numbers."""
        for name in COUNTS:
            if not 0 <= getattr(self, name) <= MOST:
                raise MTDriveError(f"recipe.{name}={getattr(self, name)} must be a whole number from 0 to {MOST}.")
        if self.decimals is not None and not 0 <= self.decimals <= MOST_DECIMALS:
            raise MTDriveError(
                f"recipe.decimals={self.decimals} must be a whole number from 0 to {MOST_DECIMALS}, or null."
            )
        for name in ("flaws", "perturbations", "metrics", "corrections", "families"):
            for key, value in (getattr(self, name) or {}).items():
                if not 0.0 <= value < math.inf:
                    raise MTDriveError(f"recipe.{name}.{key}={value} must be a number of at least 0.")
