"""What the samples of one scene are made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mtdrive.datasets.broken import BrokenPlans, find_broken, wide_plans
from mtdrive.datasets.corrections import CORRECTIONS, find_expert
from mtdrive.datasets.plans import between
from mtdrive.datasets.recipe import Recipe
from mtdrive.datasets.schema import Target
from mtdrive.simulation.feedback.assessment import Assessment, assess
from mtdrive.simulation.feedback.perceived import perceived_scene
from mtdrive.simulation.feedback.structured import Finding
from mtdrive.simulation.scene import Scene

SHARES = np.arange(1, 20) / 20.0  # of the distance from a plan that fails to the expert's


@dataclass(frozen=True)
class Material:
    """What the samples of one scene are made from."""

    scene: Scene
    """The scene to make samples of."""

    recipe: Recipe
    """The recipe, with the numbers of samples for this scene."""

    answers: np.ndarray
    """(K, 8, 3) plans that a planner in training answered in this scene; K may be 0."""

    def rng(self, purpose: str = "") -> np.random.Generator:
        """See `Recipe.rng`."""
        return self.recipe.rng(self.scene.token, purpose)

    @cached_property
    def expert(self) -> Target:
        """The plan of single-turn samples."""
        return find_expert(self.scene, self.recipe.metric, self.recipe.round_plans)

    @cached_property
    def known(self) -> Scene:
        """The scene as the feedback's source knows it."""
        perceived = self.recipe.feedback == "perceived"
        return perceived_scene(self.scene, self.recipe.metric) if perceived else self.scene

    @cached_property
    def broken(self) -> BrokenPlans:
        """A wide variety of plans and what each violates."""
        return find_broken(self.known, self.recipe.round_plans(wide_plans(self.scene)), self.recipe.metric)

    def just_passing(self, broken: np.ndarray, columns: tuple[str, ...]) -> np.ndarray | None:
        """The first plan (8, 3) from a broken one towards the expert's that violates none of the columns, or None."""
        plans = np.stack([between(broken, self.expert.poses, share) for share in SHARES])
        tried = find_broken(self.known, self.recipe.round_plans(plans), self.recipe.metric)
        passing = ~np.any([tried.violated[column] for column in columns], axis=0)
        return tried.poses[np.argmax(passing)] if passing.any() else None

    def assess(self, plans: np.ndarray) -> tuple[tuple[float, ...], list[dict[str, Finding]]]:
        """True scores of plans (N, 8, 3), and findings on each by sub-metric, as the feedback's source knows them."""
        assessments = assess(self.scene, plans, metric=self.recipe.metric, source=self.recipe.feedback, suggest=False)
        findings = [{finding.metric: finding for finding in each.feedback.findings} for each in assessments]
        return tuple(each.score for each in assessments), findings

    def correct(self, plans: np.ndarray, answers: list[Assessment], floors: np.ndarray) -> list[Target | None]:
        """Corrections of flawed plans (N, 8, 3), from the recipe's sources in their order, else the expert's plan.

        answers: the feedback on each plan. floors: (N,) scores that a correction must exceed; None where none does.
        """
        found: list[Target | None] = [None] * len(plans)
        for source, tolerance in self.recipe.corrections.items():
            rows = [row for row, target in enumerate(found) if target is None]
            if not rows:
                break
            feedbacks = [answers[row].feedback for row in rows]
            poses, scores = CORRECTIONS[source](
                self.scene, plans[rows], feedbacks, self.recipe.metric, self.recipe.round_plans
            )
            for row, plan, value in zip(rows, poses, scores, strict=True):
                if value >= self.expert.score - tolerance and value > floors[row]:
                    found[row] = Target(plan, source, float(value))
        return [
            self.expert if target is None and self.expert.score > floor else target
            for target, floor in zip(found, floors, strict=True)
        ]
