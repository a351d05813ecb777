"""Making the interactions of one scene: flawed plans, their feedback, and what to answer instead."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np

from mtdrive.datasets.corrections import Vocabulary, candidate_plans, choose
from mtdrive.datasets.flawed import between, flawed_plans
from mtdrive.datasets.schema import Exchange, Interaction
from mtdrive.simulation.assessment import Assessment, assess
from mtdrive.simulation.feedback.text import render_text
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scoring import score

DRAWS = 4  # flawed plans drawn for each one wanted; those without fault are dropped


@dataclass(frozen=True)
class Recipe:
    """How many interactions of one, two and three turns a scene gives, and how they are scored."""

    one_turn: int = 1
    two_turns: int = 3
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
    vocabulary = Vocabulary(poses, source, score(scene, poses, metric=recipe.metric).score)
    expert = choose(vocabulary, above=-1.0)
    samples = [Interaction(scene.token, (), *expert)] * recipe.one_turn

    wanted = recipe.two_turns + recipe.three_turns
    plans, names = flawed_plans(scene, rng, DRAWS * wanted)
    answers = assess(scene, plans, metric=recipe.metric, source=recipe.feedback)
    pairs = []
    for plan, name, answer in zip(plans, names, answers, strict=True):
        correction = None if answer.clean or answer.status != "ok" else choose(vocabulary, above=answer.score)
        if correction is not None and len(pairs) < wanted:
            pairs.append((exchange(plan, name, answer), correction))
    samples += [Interaction(scene.token, (first,), *correction) for first, correction in pairs[: recipe.two_turns]]

    longer = pairs[recipe.two_turns :]
    if longer:
        halves = np.stack([between(first.poses, target[0], rng.uniform(0.2, 0.8)) for first, target in longer])
        for (first, _), half, answer in zip(
            longer, halves, assess(scene, halves, metric=recipe.metric, source=recipe.feedback), strict=True
        ):
            correction = choose(vocabulary, above=max(first.score, answer.score)) if not answer.clean else None
            if correction is not None:
                samples.append(Interaction(scene.token, (first, exchange(half, "half", answer)), *correction))
    return samples


def exchange(plan: np.ndarray, source: str, answer: Assessment) -> Exchange:
    """A flawed plan and the feedback it got."""
    return Exchange(plan, source, answer.score, render_text(answer.feedback))
