"""What a sub-metric is: how it is measured, how it counts, and what feedback, tables and pictures say of it.

Everything that belongs to one sub-metric stands in its module as one `Metric`; `registry` says which score versions use
it, and how.
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


def no_facts(scene: Scene, scores: Scores, row: int) -> dict[str, Any]:
    """Of a metric that has nothing to tell but its value."""
    return {}


@dataclass(frozen=True)
class Metric:
    """One sub-metric. Its value lies in [0, 1], and 1 leaves nothing to improve.

    column: navsim's column name.
    short: its abbreviation in tables, for instance "NC".
    label: a word or two for pictures, for instance "collision".
    measure: its function of the motion and the surroundings.
    sentence: what feedback says when it is violated; its fields are `object`, `place`, `side`, `quantity`, `time`,
    `measured` and `limit`, as in `Finding`.
    rank: place among the findings; the lowest is told first.
    facts: (scene, scores, row) -> the fields of the `Finding` on one plan whose value is below 1.
    violated: (scores) -> (N,) bool, what feedback objects to; None objects to every value below 1.
    terms: words that fill in `sentence` beside numbers and object classes.
    events: what `measure` observes beside the values: name -> what it is, with its unit.
    is_safety: counts when the safer one of two plans is asked for.
    implied_by: column of a metric whose finding about the same object makes this one needless.
    weight: in the weighted mean; None for a factor of the score, 0 for no share in it.
    normalise: (values, products, best earnings) -> values, for a metric relative to PDM-Closed.
    """

    column: str
    short: str
    label: str
    measure: Measure
    sentence: str
    rank: int
    facts: Callable[[Scene, Scores, int], dict[str, Any]] = no_facts
    violated: Callable[[Scores], np.ndarray] | None = None
    terms: tuple[str, ...] = ()
    events: Mapping[str, str] = field(default_factory=dict)
    is_safety: bool = False
    implied_by: str | None = None
    weight: float | None = None
    normalise: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None

    @property
    def counts(self) -> bool:
        """Whether the score depends on it."""
        return self.weight != 0.0

    def violations(self, scores: Scores) -> np.ndarray:
        """(N,) bool: the valid plans that feedback objects to."""
        return scores.columns[self.column] < 1.0 if self.violated is None else self.violated(scores)
