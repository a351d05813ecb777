"""Making the interactions of one scene: flawed plans, their feedback, and what to answer instead."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from mtdrive.datasets.corrections import Vocabulary, candidate_plans, correct
from mtdrive.datasets.flawed import between, flawed_plans
from mtdrive.datasets.schema import Exchange, Interaction, Target
from mtdrive.simulation.assessment import assess
from mtdrive.simulation.feedback import repair
from mtdrive.simulation.feedback.text import render_text
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import OK, score

DRAWS = 4  # flawed plans drawn for each one wanted; those without fault are dropped


@dataclass(frozen=True)
class Recipe:
    """How many interactions of one, two and three turns a scene gives, and how they are scored."""

    one_turn: int = 2
    two_turns: int = 2
    three_turns: int = 2
    metric: str = "pdms_v1"
    feedback: str = "privileged"
    seed: int = 0


def interactions(scene: Scene, recipe: Recipe) -> list[Interaction]:
    """The interactions of one scene; the same for the same scene and recipe, whoever asks.

    A target always scores higher than every plan before it. A scene whose flawed plans cannot be bettered gives
    fewer refinements than the recipe asks for.
    """
    rng = np.random.default_rng([recipe.seed, zlib.crc32(scene.token.encode())])
    poses, source = candidate_plans(scene)
    expert = Vocabulary(poses, source, score(scene, poses, metric=recipe.metric).score).expert()
    samples = [Interaction(scene.token, (), expert)] * recipe.one_turn

    wanted = recipe.two_turns + recipe.three_turns
    plans, names = flawed_plans(scene, rng, DRAWS * wanted)
    firsts = refinements(scene, plans, names, expert, np.full(len(plans), -1.0), recipe)
    firsts = [(first, target) for first, target in firsts if target is not None][:wanted]
    samples += [Interaction(scene.token, (first,), target) for first, target in firsts[: recipe.two_turns]]

    longer = firsts[recipe.two_turns :]
    if not longer:
        return samples
    halves = np.stack([between(first.poses, target.poses, rng.uniform(0.2, 0.8)) for first, target in longer])
    floors = np.array([first.score for first, _ in longer])
    seconds = refinements(scene, halves, ["half"] * len(longer), expert, floors, recipe)
    for (first, _), (second, target) in zip(longer, seconds, strict=True):
        if target is not None:
            samples.append(Interaction(scene.token, (first, second), target))
    return samples


def refinements(
    scene: Scene, plans: np.ndarray, names: list[str], expert: Target, floors: np.ndarray, recipe: Recipe
) -> list[tuple[Exchange, Target | None]]:
    """For each plan (N, 8, 3): the plan with its feedback, and the target after it, or None if it has or needs none.

    floors: (N,) scores that the targets must exceed, too.
    """
    answers = assess(scene, plans, metric=recipe.metric, source=recipe.feedback)
    told = np.stack([repair.apply(scene, plan, answer.feedback.changes) for plan, answer in zip(plans, answers)])
    told_scores = score(scene, told, metric=recipe.metric).score
    pairs = []
    for row, answer in enumerate(answers):
        turn = Exchange(plans[row], names[row], answer.score, render_text(answer.feedback))
        following = Target(told[row], "told", float(told_scores[row])) if answer.feedback.changes else None
        flawed = answer.status == OK and not answer.clean
        above = max(answer.score, floors[row])
        pairs.append((turn, correct(expert, following, above) if flawed else None))
    return pairs
