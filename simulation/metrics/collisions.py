"""No at-fault collisions (NC): 1, 0.5 after hitting a static object, 0 after hitting an agent.

At its first overlap with the ego, a track is classified once (navsim `get_collision_type`, v1.1 and v2.2):
ego stopped (<= 0.05 m/s); track stopped; behind (more than 150 deg off the ego's heading, seen from the rear axle);
front bumper touched; else lateral. The ego is at fault if the track is stopped or its front bumper is touched, and in
lateral collisions while it is in several lanes or off the road. Only the first overlap with a track matters.
"""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np

from mtdrive.simulation import vehicle
from mtdrive.simulation.dynamics.state import X, Y
from mtdrive.simulation.metrics.facts import encounter
from mtdrive.simulation.metrics.geometry import boxes_overlap, is_behind
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.motion import HALF_LENGTH, HALF_WIDTH, Motion
from mtdrive.simulation.metrics.surroundings import STOPPED_SPEED, Surroundings
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import STEP, Scene

if TYPE_CHECKING:
    from mtdrive.simulation.scoring import Scores

EGO_REACH = np.hypot(HALF_LENGTH, HALF_WIDTH)  # [m] from the centre of the footprint to a corner


class CollisionKind(IntEnum):
    """How the ego meets a track (nuPlan's `CollisionType`)."""

    STOPPED_EGO = 0
    """The ego is stopped."""
    STOPPED_TRACK = 1
    """The track is stopped."""
    FRONT = 2
    """The ego's front bumper touches the track."""
    REAR = 3
    """The track is behind the ego."""
    LATERAL = 4
    """Any other."""


STOPPED_EGO, STOPPED_TRACK = int(CollisionKind.STOPPED_EGO), int(CollisionKind.STOPPED_TRACK)
FRONT, REAR, LATERAL = int(CollisionKind.FRONT), int(CollisionKind.REAR), int(CollisionKind.LATERAL)


@kernel
def _first_overlap(frames, tracks, a):
    """First step at which the ego (41, 4) overlaps track a, or -1."""
    length, width = tracks.half_sizes[a, 0], tracks.half_sizes[a, 1]
    reach = EGO_REACH + np.hypot(length, width)
    for t in range(len(frames)):
        if not tracks.present[a, t]:
            continue
        ego, other = frames[t], tracks.poses[a, t]
        if (ego[0] - other[0]) ** 2 + (ego[1] - other[1]) ** 2 > reach * reach:
            continue
        if boxes_overlap(
            ego[0], ego[1], ego[2], ego[3], HALF_LENGTH, HALF_WIDTH,
            other[0], other[1], other[2], other[3], length, width,
        ):  # fmt: skip
            return t
    return -1


@kernel
def _classify(state, frame, speed, tracks, a, t):
    """CollisionKind of the ego overlapping track a at step t."""
    if speed <= STOPPED_SPEED:
        return STOPPED_EGO
    if tracks.stopped[a]:
        return STOPPED_TRACK
    other = tracks.poses[a, t]
    cos, sin = frame[2], frame[3]
    if is_behind(state[X], state[Y], cos, sin, other[0], other[1]):
        return REAR
    bumper_x = state[X] + vehicle.REAR_AXLE_TO_FRONT * cos
    bumper_y = state[Y] + vehicle.REAR_AXLE_TO_FRONT * sin
    length, width = tracks.half_sizes[a, 0], tracks.half_sizes[a, 1]
    if boxes_overlap(
        bumper_x, bumper_y, cos, sin, 0.0, HALF_WIDTH,
        other[0], other[1], other[2], other[3], length, width,
    ):  # fmt: skip
        return FRONT
    return LATERAL


@kernel
def _collisions(states, frames, speeds, exposed, tracks):
    num_rows = len(states)
    values = np.ones(num_rows)
    steps = np.full(num_rows, np.inf)
    hit, kinds = np.full(num_rows, -1), np.full(num_rows, -1)
    for i in range(num_rows):
        low_x, high_x = frames[i, :, 0].min() - EGO_REACH, frames[i, :, 0].max() + EGO_REACH
        low_y, high_y = frames[i, :, 1].min() - EGO_REACH, frames[i, :, 1].max() + EGO_REACH
        for a in range(len(tracks.stopped)):
            bounds = tracks.bounds[a]
            if bounds[0] > high_x or bounds[2] < low_x or bounds[1] > high_y or bounds[3] < low_y:
                continue
            t = _first_overlap(frames[i], tracks, a)
            if t < 0:
                continue
            kind = _classify(states[i, t], frames[i, t], speeds[i, t], tracks, a, t)
            if kind in (STOPPED_TRACK, FRONT) or (kind == LATERAL and exposed[i, t]):
                values[i] = min(values[i], 0.0 if tracks.is_agent[a] else 0.5)
                if t < steps[i]:
                    steps[i], hit[i], kinds[i] = t, a, kind
    return values, steps, hit, kinds


def no_at_fault_collisions(motion: Motion, surroundings: Surroundings) -> Measurement:
    """NC of N plans: 1, 0.5 or 0. Events: time [s], track and kind of the earliest at-fault collision."""
    exposed = motion.areas.multiple_lanes | (motion.areas.off_road != 0)
    values, steps, hit, kinds = _collisions(motion.states, motion.frames, motion.speeds, exposed, surroundings.tracks)
    return Measurement(values, {"collision_time": steps * STEP, "collision_track": hit, "collision_kind": kinds})


def _facts(scene: Scene, scores: Scores, row: int) -> dict:
    events = scores.events
    return encounter(scene, scores, row, float(events["collision_time"][row]), int(events["collision_track"][row]))


NO_AT_FAULT_COLLISIONS = Metric(
    column="no_at_fault_collisions",
    short="NC",
    label="collision",
    measure=no_at_fault_collisions,
    sentence="Collision at {time} with {object} at {place}.",
    rank=0,
    facts=_facts,
    events={
        "collision_time": "[s] first at-fault collision, inf if none",
        "collision_track": "index of its track in the observation, whose poses are those of log replay; -1 if none",
        "collision_kind": "CollisionKind, -1 if none",
    },
    is_safety=True,
)
