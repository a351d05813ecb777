"""Trajectory understanding: does this plan collide, does it leave the road?

Half the plans do. The others are hard negatives: plans that do, moved towards the expert's until they just pass.
"""

from __future__ import annotations

import numpy as np

from mtdrive.datasets.material import Material
from mtdrive.datasets.schema import Question
from mtdrive.simulation.metrics.collisions import NO_AT_FAULT_COLLISIONS
from mtdrive.simulation.metrics.drivable_area import DRIVABLE_AREA_COMPLIANCE

SUBJECTS = {"collision": NO_AT_FAULT_COLLISIONS.column, "off_road": DRIVABLE_AREA_COMPLIANCE.column}


def questions(material: Material) -> list[Question]:
    """Questions on each subject in turn, with alternating answers; fewer where no plan of the scene fails."""
    rng, asked = material.rng("understanding"), []
    flip = int(rng.integers(2))
    for number in range(material.recipe.understanding):
        kind = list(SUBJECTS)[number % len(SUBJECTS)]
        broken = material.broken.breaking(SUBJECTS[kind])
        if not len(broken):
            continue
        plan, source = rng.choice(broken), f"breaks_{SUBJECTS[kind]}"
        if (number // len(SUBJECTS) + number + flip) % 2:
            plan, source = material.just_passing(plan, (SUBJECTS[kind],)), f"just_passes_{SUBJECTS[kind]}"
        if plan is not None:
            asked.append(question(material, kind, plan[None], (source,)))
    return asked


def question(material: Material, kind: str, plans: np.ndarray, sources: tuple[str, ...]) -> Question:
    """The question about a plan (1, 8, 3), answered by simulation."""
    scores, (findings,) = material.assess(plans)
    return Question(material.scene.token, kind, plans, sources, scores, findings[SUBJECTS[kind]])
