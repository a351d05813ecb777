"""What a sub-metric is: how it is measured, how it counts, and what feedback, tables and pictures say about it.

Everything that belongs to one sub-metric is in its own module, as one `Metric`; `registry` says which score versions
use it, and how.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.motion import Motion
from mtdrive.simulation.metrics.surroundings import Surroundings

if TYPE_CHECKING:
    from mtdrive.simulation.scene import Scene
    from mtdrive.simulation.scoring import Scores

Measure = Callable[[Motion, Surroundings], Measurement]
"""Measures a metric for N simulated plans."""


def no_facts(scene: Scene, scores: Scores, row: int) -> dict[str, Any]:
    """The facts of a metric that reports nothing but its value."""
    return {}


@dataclass(frozen=True)
class Metric:
    """One sub-metric. Its value is in [0, 1]; 1 leaves nothing to improve."""

    column: str
    """navsim's column name."""
    short: str
    """Abbreviation in tables, such as "NC"."""
    label: str
    """A word or two for pictures, such as "collision"."""
    measure: Measure
    """Measures it from the motion and the surroundings of N plans."""
    sentence: str
    """What feedback says about a violation. Its fields are `object`, `place`, `side`, `quantity`, `time`, `measured`
    and `limit`, as in `Finding`."""
    rank: int
    """Order of the findings: the lowest rank comes first."""
    facts: Callable[[Scene, Scores, int], dict[str, Any]] = no_facts
    """(scene, scores, row) -> fields of the `Finding` on one plan whose value is below 1."""
    violated: Callable[[Scores], np.ndarray] | None = None
    """(scores) -> (N,) bool, which plans feedback objects to; None for every value below 1."""
    terms: tuple[str, ...] = ()
    """Words that can fill `sentence` beside numbers and object classes."""
    events: Mapping[str, str] = field(default_factory=dict)
    """What `measure` observes beside the values: name -> description with the unit."""
    is_safety: bool = False
    """Whether it counts in deciding which of two plans is safer."""
    implied_by: str | None = None
    """Column of a metric whose finding about the same object makes a finding of this one redundant."""
    weight: float | None = None
    """Weight in the weighted mean; None for a factor of the score, 0 for a metric that does not count."""
    normalise: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    """(distances, products, best) -> values, each (N,), for a metric relative to PDM-Closed; see `metrics.progress`."""

    @property
    def counts(self) -> bool:
        """Whether the score depends on it."""
        return self.weight != 0.0

    def violations(self, scores: Scores) -> np.ndarray:
        """(N,) bool, which of N valid plans feedback objects to."""
        return scores.columns[self.column] < 1.0 if self.violated is None else self.violated(scores)
