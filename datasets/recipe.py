"""The recipe of a dataset: how many samples of each kind a scene gives, and what they are made from."""

from __future__ import annotations

import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mtdrive.datasets.corrections import CORRECTIONS
from mtdrive.datasets.flawed import FLAWS
from mtdrive.datasets.perturbed import PERTURBATIONS
from mtdrive.datasets.recipe_settings import COUNTS, RecipeSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.structured import SOURCES, Source
from mtdrive.simulation.metrics.registry import metrics_of


@dataclass(frozen=True)
class Recipe(RecipeSettings):
    """A recipe with everything else that decides what a scene gives."""

    metric: str
    """Score version, such as `pdms_v1`."""

    feedback: Source
    """Source of the feedback, `privileged` or `perceived`."""

    seed: int
    """Seed of all that is drawn at random."""

    feedback_steps: bool = False
    """Whether feedback names changes second by second, not only at the end of the plan."""

    def __post_init__(self) -> None:
        """Raise MTDriveError for unknown names and impossible numbers."""
        super().__post_init__()
        counted = [metric.column for metric in metrics_of(self.metric) if metric.counts]
        if self.feedback not in SOURCES:
            raise MTDriveError(f"There is no feedback source {self.feedback!r}: choose {' or '.join(SOURCES)}.")
        check_shares("recipe.flaws", self.flaws, FLAWS)
        check_shares("recipe.perturbations", self.perturbations, PERTURBATIONS)
        if self.metrics is not None:
            check_shares("recipe.metrics", self.metrics, counted)
        check_known("recipe.corrections", self.corrections, CORRECTIONS)

    def rng(self, token: str, purpose: str = "") -> np.random.Generator:
        """A scene's randomness, its own for each purpose: one kind of sample does not depend on another."""
        return np.random.default_rng([self.seed, zlib.crc32((token + purpose).encode())])

    def for_scene(self, token: str, family: str) -> Recipe:
        """The recipe with its numbers of samples times the family's factor, rounded up or down at random."""
        factor = self.families.get(family, 1.0)
        if factor == 1.0:
            return self
        rng = self.rng(token, "family")
        counts: dict[str, Any] = {name: int(factor * getattr(self, name) + rng.uniform()) for name in COUNTS}
        return replace(self, **counts)

    def round_plans(self, plans: np.ndarray) -> np.ndarray:
        """Plans (..., 3) as they are written in answers and scored: rounded to `decimals`, if there are any."""
        return plans if self.decimals is None else np.round(plans, self.decimals) + 0.0


def check_known(key: str, given: Mapping[str, float], known: Collection[str]) -> None:
    """Refuse names that do not exist.

    Raises:
        MTDriveError: one does not; the sentence names the key and what there is.
    """
    if unknown := sorted(set(given) - set(known)):
        raise MTDriveError(f"{key} names {unknown[0]!r}, which does not exist; choose from {', '.join(known)}.")


def check_shares(key: str, given: Mapping[str, float], known: Collection[str]) -> None:
    """Refuse names that do not exist, and shares that nothing can be drawn by.

    Raises:
        MTDriveError: a name does not exist, or no share is positive.
    """
    check_known(key, given, known)
    if sum(given.values()) <= 0.0:
        raise MTDriveError(f"{key}={dict(given)} must hold at least one positive share.")
