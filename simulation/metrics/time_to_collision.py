"""Time to collision within bound (TTC): 0 if the ego, moving straight on at its speed, would soon overlap a track.

At each step the footprint is moved on by 0, 0.3, 0.6 and 0.9 s at constant speed and heading (a car that reverses is
moved forwards) and compared with the tracks of that later moment. A track counts if it is ahead (less than 30 deg off
the heading, seen from the rear axle), or if it is not behind and the ego is in several lanes, off the road, or with its
rear axle in an intersection; otherwise it is ignored from then on, so that only the first overlap with a track matters.
Steps slower than 0.005 m/s are skipped. v1.1 looks at all 41 steps against an observation of 5 s, v2.2 at the first 32
against one of 4 s (navsim `PDMScorer._calculate_ttc`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtdrive.simulation.dynamics.state import X, Y
from mtdrive.simulation.metrics.areas import INTERSECTION
from mtdrive.simulation.metrics.collisions import EGO_REACH, NO_AT_FAULT_COLLISIONS
from mtdrive.simulation.metrics.facts import encounter
from mtdrive.simulation.metrics.geometry import boxes_overlap, is_ahead, is_behind
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.motion import HALF_LENGTH, HALF_WIDTH, Motion
from mtdrive.simulation.metrics.polygon_index import in_layer
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import NUM_STEPS, STEP, Scene

if TYPE_CHECKING:
    from mtdrive.simulation.scoring import Scores

LOOK_AHEAD_STEPS = 3
NUM_LOOK_AHEADS = 4
LOOK_AHEAD = (NUM_LOOK_AHEADS - 1) * LOOK_AHEAD_STEPS  # steps, 0.9 s
MIN_SPEED = 5e-3  # [m/s]


@kernel
def _first_overlap(frames, speeds, tracks, a, num_steps):
    """First step from which the extrapolated ego overlaps track a, and the step of the overlap; -1, -1 if none."""
    length, width = tracks.half_sizes[a, 0], tracks.half_sizes[a, 1]
    reach = EGO_REACH + np.hypot(length, width)
    for t in range(num_steps):
        if speeds[t] < MIN_SPEED:
            continue
        cos, sin = frames[t, 2], frames[t, 3]
        for k in range(NUM_LOOK_AHEADS):
            later = t + k * LOOK_AHEAD_STEPS
            if not tracks.present[a, later]:
                continue
            travel = speeds[t] * (k * LOOK_AHEAD_STEPS * STEP)
            x, y = frames[t, 0] + cos * travel, frames[t, 1] + sin * travel
            other = tracks.poses[a, later]
            if (x - other[0]) ** 2 + (y - other[1]) ** 2 > reach * reach:
                continue
            if boxes_overlap(
                x, y, cos, sin, HALF_LENGTH, HALF_WIDTH,
                other[0], other[1], other[2], other[3], length, width,
            ):  # fmt: skip
                return t, later
    return -1, -1


@kernel
def _time_to_collision(states, frames, speeds, exposed, tracks, index, num_steps):
    num_rows = len(states)
    values = np.ones(num_rows)
    steps = np.full(num_rows, np.inf)
    met = np.full(num_rows, -1)
    for i in range(num_rows):
        travel = speeds[i, :num_steps].max() * (LOOK_AHEAD * STEP) + EGO_REACH
        low_x, high_x = frames[i, :, 0].min() - travel, frames[i, :, 0].max() + travel
        low_y, high_y = frames[i, :, 1].min() - travel, frames[i, :, 1].max() + travel
        for a in range(len(tracks.stopped)):
            bounds = tracks.bounds[a]
            if bounds[0] > high_x or bounds[2] < low_x or bounds[1] > high_y or bounds[3] < low_y:
                continue
            t, later = _first_overlap(frames[i], speeds[i], tracks, a, num_steps)
            if t < 0:
                continue
            x, y, cos, sin = states[i, t, X], states[i, t, Y], frames[i, t, 2], frames[i, t, 3]
            other_x, other_y = tracks.poses[a, later, 0], tracks.poses[a, later, 1]
            counts = is_ahead(x, y, cos, sin, other_x, other_y) or (
                (exposed[i, t] or in_layer(index, INTERSECTION, x, y))
                and not is_behind(x, y, cos, sin, other_x, other_y)
            )
            if counts:
                values[i] = 0.0
                if t < steps[i]:
                    steps[i], met[i] = t, a
    return values, steps, met


def time_to_collision(motion: Motion, surroundings: Surroundings, *, num_steps: int = NUM_STEPS) -> Measurement:
    """TTC of N plans over their first num_steps steps: 1 or 0. Events: time [s] and track of the first violation.

    Raises:
        ValueError: the observation is too short to look ahead from the last of these steps.
    """
    observed = surroundings.tracks.present.shape[1]
    if observed < num_steps + LOOK_AHEAD:
        raise ValueError(
            f"TTC over {num_steps} steps needs an observation of {num_steps + LOOK_AHEAD}, not {observed}."
        )
    exposed = motion.areas.multiple_lanes | (motion.areas.off_road != 0)
    values, steps, met = _time_to_collision(
        motion.states, motion.frames, motion.speeds, exposed, surroundings.tracks, surroundings.polygon_index,
        num_steps,
    )  # fmt: skip
    return Measurement(values, {"ttc_time": steps * STEP, "ttc_track": met})


def _facts(scene: Scene, scores: Scores, row: int) -> dict:
    return encounter(scene, scores, row, float(scores.events["ttc_time"][row]), int(scores.events["ttc_track"][row]))


TIME_TO_COLLISION = Metric(
    column="time_to_collision_within_bound",
    short="TTC",
    label="too close",
    measure=time_to_collision,
    sentence="Too close at {time} to {object} at {place}.",
    rank=30,
    facts=_facts,
    events={
        "ttc_time": "[s] first step from which a collision is within bound, inf if none",
        "ttc_track": "index of the track that would be hit, -1 if none",
    },
    is_safety=True,
    implied_by=NO_AT_FAULT_COLLISIONS.column,
)
