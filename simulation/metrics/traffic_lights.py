"""Traffic light compliance (TLC): 0 if the footprint ever touches a connector of the route while its light is red.

The whole connector polygon counts, boundary included (navsim v2.2 `PDMScorer._calculate_traffic_light_compliance`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtdrive.simulation.metrics.facts import when_and_where
from mtdrive.simulation.metrics.geometry import box_meets_polygon
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.motion import HALF_LENGTH, HALF_WIDTH, Motion
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import STEP, Scene

if TYPE_CHECKING:
    from mtdrive.simulation.scoring import Scores


@kernel
def _first_red(frames, red, xy, ring_start, polygon_start):
    """First step (N,) at which the footprint meets a connector whose light is red, inf if none."""
    num_rows, num_steps = frames.shape[:2]
    steps = np.full(num_rows, np.inf)
    for i in range(num_rows):
        for t in range(num_steps):
            x, y, cos, sin = frames[i, t, 0], frames[i, t, 1], frames[i, t, 2], frames[i, t, 3]
            for light in range(red.shape[1]):
                if not red[t, light]:
                    continue
                rings = ring_start[polygon_start[light] : polygon_start[light + 1] + 1]
                if box_meets_polygon(x, y, cos, sin, HALF_LENGTH, HALF_WIDTH, xy, rings):
                    steps[i] = t
                    break
            if steps[i] != np.inf:
                break
    return steps


def traffic_light_compliance(motion: Motion, surroundings: Surroundings) -> Measurement:
    """TLC of N plans: 1 or 0. Events: time [s] of the first step on a red connector."""
    lights = surroundings.lights
    steps = _first_red(motion.frames, lights.red, lights.xy, lights.ring_start, lights.polygon_start)
    return Measurement(np.where(steps == np.inf, 1.0, 0.0), {"red_light_time": steps * STEP})


def _facts(scene: Scene, scores: Scores, row: int) -> dict:
    return when_and_where(scores, row, float(scores.events["red_light_time"][row]))


TRAFFIC_LIGHT_COMPLIANCE = Metric(
    column="traffic_light_compliance",
    short="TLC",
    label="red light",
    measure=traffic_light_compliance,
    sentence="Red light at {time}.",
    rank=20,
    facts=_facts,
    events={"red_light_time": "[s] first step on a connector whose light is red, inf if none"},
    is_safety=True,
)
