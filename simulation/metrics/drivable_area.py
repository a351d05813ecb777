"""Drivable area compliance (DAC): 0 if a corner of the footprint ever leaves the road, else 1.

The road is every roadblock, intersection and car park; lane connectors and generic drivable areas do not count
(navsim `PDMScorer._calculate_drivable_area_compliance`, v1.1 and v2.2).
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.motion import CORNERS, Motion
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.scene import STEP


def drivable_area_compliance(motion: Motion, surroundings: Surroundings) -> Measurement:
    """DAC of each plan. Events: time [s] of the first corner off the road, and its index in CORNERS (-1 if none)."""
    off_road = motion.areas.off_road
    left = off_road.any(axis=1)
    step = (off_road != 0).argmax(axis=1)
    corners_off = off_road[np.arange(len(off_road)), step]
    corner = (corners_off[:, None] >> np.arange(len(CORNERS)) & 1).argmax(axis=1)
    return Measurement(
        np.where(left, 0.0, 1.0),
        {"off_road_time": np.where(left, step * STEP, np.inf), "off_road_corner": np.where(left, corner, -1)},
    )
