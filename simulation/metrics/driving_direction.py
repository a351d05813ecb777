"""Driving direction compliance (DDC): 1, 0.5 or 0 by the way driven against traffic within a second.

The way of the footprint's centre counts in steps that end in no on-route lane or connector; v2.2 exempts
intersections. The largest sum over 11 steps decides: below 2 m 1, below 6 m 0.5, else 0 (navsim
`PDMScorer._calculate_driving_direction_compliance`).
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.motion import Motion
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.scene import STEP

WINDOW = 11  # steps
COMPLIANT = 2.0  # [m]
VIOLATION = 6.0  # [m]


def driving_direction_compliance(
    motion: Motion, surroundings: Surroundings, *, exempt_intersections: bool
) -> Measurement:
    """DDC of each plan. Events: time [s] at which the way first reaches 2 m, and the largest way [m]."""
    centres = motion.frames[..., :2]
    way = np.zeros(centres.shape[:2])
    way[:, 1:] = np.hypot(*np.moveaxis(np.diff(centres, axis=1), -1, 0))
    against = motion.areas.off_route
    if exempt_intersections:
        against = against & ~motion.areas.in_intersection
    padded = np.pad(np.where(against, way, 0.0), ((0, 0), (WINDOW - 1, 0)))
    sums = np.lib.stride_tricks.sliding_window_view(padded, WINDOW, axis=1).sum(axis=-1)

    worst = sums.max(axis=1)
    values = np.where(worst < COMPLIANT, 1.0, np.where(worst < VIOLATION, 0.5, 0.0))
    time = np.where(worst < COMPLIANT, np.inf, (sums >= COMPLIANT).argmax(axis=1) * STEP)
    return Measurement(values, {"wrong_way_time": time, "wrong_way_distance": worst})
