"""Lane keeping (LK): 0 if the footprint's centre is more than 0.5 m off the centerline for 20 steps in a row, else 1.

Steps with the centre in an intersection are skipped; they do not end a row (navsim v2.2
`PDMScorer._calculate_lane_keeping`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtdrive.simulation.metrics.facts import when_and_where
from mtdrive.simulation.metrics.geometry import nearby_segment
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.motion import Motion
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import STEP, Scene

if TYPE_CHECKING:
    from mtdrive.simulation.scoring import Scores

MAX_DEVIATION = 0.5  # [m]
MAX_STEPS = 20


@kernel
def _first_violation(frames, in_intersection, centerline):
    """First step (N,) that completes MAX_STEPS deviating ones, inf if none does."""
    num_rows, num_steps = in_intersection.shape
    steps = np.full(num_rows, np.inf)
    for i in range(num_rows):
        deviating = 0
        segment = 0
        for t in range(num_steps):
            if in_intersection[i, t]:
                continue
            found = nearby_segment(centerline, frames[i, t, 0], frames[i, t, 1], MAX_DEVIATION, segment)
            if found >= 0:
                segment = found
                deviating = 0
                continue
            deviating += 1
            if deviating == MAX_STEPS:
                steps[i] = t
                break
    return steps


def lane_keeping(motion: Motion, surroundings: Surroundings) -> Measurement:
    """LK of N plans: 1 or 0. Events: time [s] at which the row of deviating steps becomes too long."""
    steps = _first_violation(motion.frames, motion.areas.in_intersection, surroundings.centerline)
    return Measurement(np.where(steps == np.inf, 1.0, 0.0), {"lane_keeping_time": steps * STEP})


def _facts(scene: Scene, scores: Scores, row: int) -> dict:
    return when_and_where(scores, row, float(scores.events["lane_keeping_time"][row]))


LANE_KEEPING = Metric(
    column="lane_keeping",
    short="LK",
    label="off lane centre",
    measure=lane_keeping,
    sentence="Off the lane's centre at {time}.",
    rank=60,
    facts=_facts,
    events={"lane_keeping_time": "[s] when the plan has been off the centerline for too long, inf if never"},
)
