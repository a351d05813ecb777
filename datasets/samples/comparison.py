"""Comparing two plans: which one is safer, and what is wrong with the other."""

from __future__ import annotations

import numpy as np

from mtdrive.datasets.material import Material
from mtdrive.datasets.schema import Question
from mtdrive.simulation.feedback.structured import Finding
from mtdrive.simulation.metrics.registry import metrics_of

KIND = "comparison"


def safety(metric: str) -> list[str]:
    """Safety columns of a score version, worst first.

    Of two plans the one whose worst violation comes later, or that has none, is the safer one.
    """
    columns = {sub_metric.column: sub_metric.rank for sub_metric in metrics_of(metric) if sub_metric.is_safety}
    return sorted(columns, key=columns.__getitem__)


def comparisons(material: Material) -> list[Question]:
    """Half against a plan that just passes, half against any plan that is not equally safe.

    Fewer than the recipe asks for where no plan of the scene fails.
    """
    rng, asked = material.rng(KIND), []
    for number in range(material.recipe.comparison):
        columns = safety(material.recipe.metric)
        ranks = worst([material.broken.violated[column] for column in columns])
        failing = np.unique(ranks[ranks < len(columns)])
        if not len(failing):
            continue
        rank = rng.choice(failing)
        first, source = rng.choice(material.broken.poses[ranks == rank]), f"breaks_{columns[rank]}"
        if number % 2:
            second, other = material.just_passing(first, tuple(columns)), "just_passes"
        else:
            others = np.flatnonzero(ranks != rank)
            row = rng.choice(others) if len(others) else None
            second = None if row is None else material.broken.poses[row]
            other = "passes" if row is None or ranks[row] == len(columns) else f"breaks_{columns[ranks[row]]}"
        if second is not None:
            plans, sources = np.stack([first, second]), (source, other)
            if rng.random() >= 0.5:
                plans, sources = plans[::-1], (other, source)
            asked.append(comparison(material, plans, sources))
    return asked


def comparison(material: Material, plans: np.ndarray, sources: tuple[str, ...]) -> Question:
    """The question about two plans (2, 8, 3) that are not equally safe, answered by simulation."""
    scores, findings = material.assess(plans)
    columns = safety(material.recipe.metric)
    ranks = worst([np.array([not finding[column].passed for finding in findings]) for column in columns])
    safer = int(np.argmax(ranks))
    wrong: Finding = findings[1 - safer][columns[ranks[1 - safer]]]
    return Question(material.scene.token, KIND, plans, sources, scores, wrong, safer)


def worst(violated: list[np.ndarray]) -> np.ndarray:
    """Index of the first of K sub-metrics, each (N,) bool, that a plan violates; K for none. (N,) int."""
    return np.argmax([*violated, np.ones_like(violated[0])], axis=0)
