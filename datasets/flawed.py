"""Sources of flawed plans.

A source is a function (material, rng, count) -> plans (N, 8, 3) and a name for each. It may give fewer than `count`
plans, and not all of them are flawed: the scorer decides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from mtdrive.datasets.perturbed import perturbed_plans
from mtdrive.datasets.plans import TIMES

if TYPE_CHECKING:
    from mtdrive.datasets.material import Material

NO_PLANS = np.empty((0, len(TIMES), 3))


def perturbed(material: Material, rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """The expert's plan, perturbed."""
    return perturbed_plans(material.scene, rng, count, material.recipe.perturbations)


def broken(material: Material, rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """Plans that break one sub-metric each and as few others as possible, named `breaks_<column>`."""
    weights = material.recipe.metrics or dict.fromkeys(material.broken.violated, 1.0)
    found = {column: material.broken.breaking(column) for column, weight in weights.items() if weight > 0.0}
    found = {column: plans for column, plans in found.items() if len(plans)}
    if not found:
        return NO_PLANS, []
    shares = np.array([weights[column] for column in found])
    names = rng.choice(list(found), count, p=shares / shares.sum()).tolist()
    return np.stack([rng.choice(found[name]) for name in names]), [f"breaks_{name}" for name in names]


def planner(material: Material, rng: np.random.Generator, count: int) -> tuple[np.ndarray, list[str]]:
    """Answers of a planner in training."""
    chosen = rng.permutation(len(material.answers))[:count]
    return material.answers[chosen], ["planner"] * len(chosen)


FLAWS: dict[str, Callable[[Material, np.random.Generator, int], tuple[np.ndarray, list[str]]]] = {
    "perturbed": perturbed,
    "broken": broken,
    "planner": planner,
}
