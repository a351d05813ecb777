"""Driving direction compliance (DDC): 1, 0.5 or 0 by the distance driven against traffic within a second.

The distance that the footprint's centre covers counts in steps that end in no lane or connector of the route; v2.2
exempts intersections. The largest sum over 11 steps decides: below 2 m 1, below 6 m 0.5, else 0 (navsim
`PDMScorer._calculate_driving_direction_compliance`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtdrive.simulation.metrics.facts import when_and_where
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.motion import Motion
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import STEP, Scene

if TYPE_CHECKING:
    from mtdrive.simulation.scoring import Scores

WINDOW = 11  # steps
COMPLIANT = 2.0  # [m]
VIOLATION = 6.0  # [m]


@kernel
def _driving_direction(frames, against):
    """Largest distance (N,) [m] against traffic in WINDOW steps, and the first step (N,) at which COMPLIANT is reached.

    against: (N, S) bool, whether the distance of a step counts.
    """
    num_rows, num_steps = against.shape
    worst, first = np.zeros(num_rows), np.full(num_rows, np.inf)
    distances = np.zeros(num_steps)
    for i in range(num_rows):
        for t in range(1, num_steps):
            dx, dy = frames[i, t, 0] - frames[i, t - 1, 0], frames[i, t, 1] - frames[i, t - 1, 1]
            distances[t] = np.sqrt(dx * dx + dy * dy) if against[i, t] else 0.0
            recent = distances[max(0, t + 1 - WINDOW) : t + 1].sum()
            worst[i] = max(worst[i], recent)
            if recent >= COMPLIANT and first[i] == np.inf:
                first[i] = t
    return worst, first


def driving_direction_compliance(
    motion: Motion, surroundings: Surroundings, *, exempt_intersections: bool = True
) -> Measurement:
    """DDC of N plans: 1, 0.5 or 0. Events: time [s] at which the distance first reaches 2 m; the largest distance [m].

    exempt_intersections: do not count steps with the centre in an intersection (v2.2).
    """
    against = motion.areas.off_route
    if exempt_intersections:
        against = against & ~motion.areas.in_intersection
    worst, first = _driving_direction(motion.frames, against)
    values = np.where(worst < COMPLIANT, 1.0, np.where(worst < VIOLATION, 0.5, 0.0))
    return Measurement(values, {"wrong_way_time": first * STEP, "wrong_way_distance": worst})


def _facts(scene: Scene, scores: Scores, row: int) -> dict:
    return {
        **when_and_where(scores, row, float(scores.events["wrong_way_time"][row])),
        "quantity": "distance off the route's lanes within a second",
        "measured": float(scores.events["wrong_way_distance"][row]),
        "limit": COMPLIANT,
    }


DRIVING_DIRECTION_COMPLIANCE = Metric(
    column="driving_direction_compliance",
    short="DDC",
    label="wrong way",
    measure=driving_direction_compliance,
    sentence="Wrong lane at {time} for {measured}.",
    rank=40,
    facts=_facts,
    events={
        "wrong_way_time": "[s] first time at which 2 m were driven against traffic within a second, inf if never",
        "wrong_way_distance": "[m] the largest distance driven against traffic within a second",
    },
)
