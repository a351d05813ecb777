"""Refinement over several turns: flawed plans, their feedback, and what to answer instead.

A target always scores higher than every plan before it. A scene whose flawed plans cannot be improved gives fewer
samples than the recipe asks for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mtdrive.datasets.flawed import FLAWS
from mtdrive.datasets.material import Material
from mtdrive.datasets.plans import between
from mtdrive.datasets.schema import Exchange, Interaction, Target
from mtdrive.simulation.feedback.assessment import Assessment, assess
from mtdrive.simulation.feedback.text import render_text
from mtdrive.simulation.scoring import OK

DRAWS = 4  # flawed plans drawn for each one wanted; those without fault are dropped


@dataclass(frozen=True)
class Chain:
    """The turns of an interaction so far."""

    exchanges: tuple[Exchange, ...]
    """Flawed plans with their feedback, oldest first."""

    target: Target
    """The correction of the last flawed plan."""


def refinements(material: Material) -> list[Interaction]:
    """Samples of two to four turns; a further turn starts from a half-corrected plan."""
    recipe, rng = material.recipe, material.rng()
    counts = {2: recipe.two_turns, 3: recipe.three_turns, 4: recipe.four_turns}
    active = begin(material, rng, sum(counts.values()))
    samples = []
    for turns, count in counts.items():
        if turns > 2:
            halves = [between(c.exchanges[-1].poses, c.target.poses, rng.uniform(0.2, 0.8)) for c in active]
            plans = recipe.round_plans(np.array(halves).reshape(-1, *material.expert.poses.shape))
            active = list(filter(None, extend(material, active, plans, ["half"] * len(active))))
        samples += [Interaction(material.scene.token, chain.exchanges, chain.target) for chain in active[:count]]
        active = active[count:]
    return samples


def begin(material: Material, rng: np.random.Generator, wanted: int) -> list[Chain]:
    """Up to `wanted` first turns, from the recipe's sources of flawed plans in about their shares."""
    order = material.rng("order")
    total = sum(material.recipe.flaws.values())
    found: list[tuple[float, Chain]] = []
    for name, share in material.recipe.flaws.items():
        count = int(np.ceil(DRAWS * wanted * share / total))
        if not count:
            continue
        plans, names = FLAWS[name](material, rng, count)
        chains = extend(material, [None] * len(plans), material.recipe.round_plans(plans), names)
        start = order.uniform()
        found += [((start + rank) / share, chain) for rank, chain in enumerate(filter(None, chains))]
    return [chain for _, chain in sorted(found, key=lambda entry: entry[0])[:wanted]]


def extend(
    material: Material, before: Sequence[Chain | None], plans: np.ndarray, names: list[str]
) -> list[Chain | None]:
    """One more turn each: a plan (N, 8, 3) with its feedback and correction; None if it has or needs none."""
    if not len(plans):
        return []
    recipe = material.recipe
    answers = assess(material.scene, plans, metric=recipe.metric, source=recipe.feedback, steps=recipe.feedback_steps)
    rows = [row for row, answer in enumerate(answers) if answer.status == OK and not answer.clean]
    earlier = [() if chain is None else chain.exchanges for chain in before]
    floors = [max([answers[row].score, *(turn.score for turn in earlier[row])]) for row in rows]
    targets = material.correct(plans[rows], [answers[row] for row in rows], np.array(floors))
    chains: list[Chain | None] = [None] * len(plans)
    for row, target in zip(rows, targets, strict=True):
        if target is not None:
            chains[row] = Chain((*earlier[row], exchange(plans[row], names[row], answers[row])), target)
    return chains


def exchange(plan: np.ndarray, source: str, answer: Assessment) -> Exchange:
    """A plan (8, 3) and the feedback on it."""
    issues = [finding.metric for finding in answer.feedback.violations]
    return Exchange(plan, source, answer.score, render_text(answer.feedback), issues[0] if issues else "")
