"""The kinds of samples, one module each: a function (material) -> samples of one scene.

The same scene and recipe always give the same samples. A new kind is a module and a line here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mtdrive.datasets.material import Material
from mtdrive.datasets.samples.comparison import comparisons
from mtdrive.datasets.samples.planning import single_turns
from mtdrive.datasets.samples.refinement import refinements
from mtdrive.datasets.samples.understanding import questions
from mtdrive.datasets.schema import Sample

KINDS: tuple[Callable[[Material], Sequence[Sample]], ...] = (single_turns, refinements, questions, comparisons)


def samples_of(material: Material) -> list[Sample]:
    """All samples of a scene, kind by kind."""
    return [sample for make in KINDS for sample in make(material)]
