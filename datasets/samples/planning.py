"""Single-turn planning: the expert's plan."""

from __future__ import annotations

from mtdrive.datasets.material import Material
from mtdrive.datasets.schema import Interaction


def single_turns(material: Material) -> list[Interaction]:
    """The one sample of the scene, as often as the recipe asks for it."""
    wanted = material.recipe.one_turn
    return [Interaction(material.scene.token, (), material.expert)] * wanted if wanted else []
