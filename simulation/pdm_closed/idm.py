"""The Intelligent Driver Model along a path (navsim `BatchIDMPolicy` and `PDMGenerator`).

Two quirks of the official code are kept, since they change the plan: the leader is searched at even steps only and is
all zero at step 1, so every plan brakes for 0.1 s; and the five policies of a path share the record of the leader, so a
field that one of them does not set keeps the value of the one before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtdrive.simulation import vehicle
from mtdrive.simulation.pdm_closed.forecast import REFRESH
from mtdrive.simulation.pdm_closed.path import interpolate_path
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import NUM_STEPS, STEP

SPEED_FRACTIONS = np.array([0.2, 0.4, 0.6, 0.8, 1.0])  # of the speed limit
MIN_GAP = 1.0  # [m]
HEADWAY = 1.5  # [s]
MAX_ACCELERATION = 1.5  # [m/s^2]
MAX_DECELERATION = 3.0  # [m/s^2]
EXPONENT = 10


class Obstacles(NamedTuple):
    """N objects and red lights, in UTM."""

    xy: np.ndarray
    """(V, 2) vertices of their outlines at t0 [m]; the ring of each is closed."""
    start: np.ndarray
    """(N + 1,) int64 offsets of the rings into `xy`."""
    velocity: np.ndarray
    """(N, 2) [m/s]; 0 for lights."""
    heading: np.ndarray
    """(N,) [rad]; 0 for lights."""
    speed: np.ndarray
    """(N,) [m/s]; 0 for static objects and lights."""
    is_light: np.ndarray
    """(N,) bool."""


class Candidates(NamedTuple):
    """The obstacles in the corridor of a path at each step (M in all)."""

    start: np.ndarray
    """(42,) int64 offsets of the steps into the rows below."""
    obstacle: np.ndarray
    """(M,) int64 indices in `Obstacles`."""
    progress: np.ndarray
    """(M,) distance along the path of the obstacle's centre [m]."""


@kernel
def simulate_idm(
    path_states: np.ndarray,
    path_progress: np.ndarray,
    path_length: float,
    start: float,
    speed: float,
    target_speeds: np.ndarray,
    obstacles: Obstacles,
    candidates: Candidates,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Simulate P policies along a path.

    Args:
        path_states: (n, 3) points of the path, as in `Path`.
        path_progress: (n,) distance of these points along the path [m].
        path_length: of the path [m].
        start: distance along the path at t0 [m].
        speed: at t0 [m/s].
        target_speeds: (P,) desired speeds [m/s].
        obstacles: all `Obstacles`.
        candidates: the `Candidates` among them on this path.

    Returns:
        states (P, 41, 3), motion (P, 41, 2) and leaders (P, 41, 3) of `Proposals`.
    """
    num_policies = len(target_speeds)
    states = np.zeros((num_policies, NUM_STEPS, 3))
    motion = np.zeros((num_policies, NUM_STEPS, 2))
    leaders = np.zeros((num_policies, NUM_STEPS, 3))
    motion[:, 0, 0], motion[:, 0, 1] = start, speed
    states[:, 0] = interpolate_path(path_states, path_progress, start)
    for step in range(1, NUM_STEPS):
        leader = np.zeros(3)
        for policy in range(num_policies):
            if step % REFRESH == 0:
                _find_leader(
                    leader,
                    path_length,
                    states[policy, step - 1],
                    motion[policy, step - 1, 0],
                    step,
                    obstacles,
                    candidates,
                )
                leaders[policy, step] = leader
            else:
                leaders[policy, step] = leaders[policy, step - 1]
            motion[policy, step] = _advance(motion[policy, step - 1], leaders[policy, step], target_speeds[policy])
            states[policy, step] = interpolate_path(path_states, path_progress, motion[policy, step, 0])
    return states, motion, leaders


@kernel
def _find_leader(leader, path_length, state, progress, step, obstacles, candidates):
    """Write distance, speed and rear length of the nearest candidate ahead, else of the end of the path, to leader."""
    ego = _ego_corners(state)
    nearest, gap = -1, np.inf
    for row in range(candidates.start[step], candidates.start[step + 1]):
        if candidates.progress[row] <= progress:
            continue
        k = candidates.obstacle[row]
        ring = obstacles.xy[obstacles.start[k] : obstacles.start[k + 1]] + step * STEP * obstacles.velocity[k]
        distance = polygon_distance(ego, ring)
        if distance < gap:
            nearest, gap = k, distance
    if nearest < 0:
        leader[0], leader[2] = path_length, vehicle.LENGTH / 2
        return
    leader[0] = progress + gap
    if not obstacles.is_light[nearest]:
        leader[1] = obstacles.speed[nearest] * np.cos(obstacles.heading[nearest] - state[2])


@kernel
def _advance(motion, leader, target_speed):
    """Distance [m] and speed [m/s] one step after `motion` (2,), behind a leader (3,)."""
    progress, speed = motion
    desired_gap = (
        MIN_GAP + speed * HEADWAY + speed * (speed - leader[1]) / (2 * np.sqrt(MAX_ACCELERATION * MAX_DECELERATION))
    )
    gap = max(leader[0] - progress - leader[2], MIN_GAP)
    acceleration = MAX_ACCELERATION * (1 - (speed / target_speed) ** EXPONENT - (desired_gap / gap) ** 2)
    acceleration = min(max(acceleration, -MAX_DECELERATION), MAX_ACCELERATION)
    return np.array([progress + STEP * speed, speed + STEP * acceleration])


@kernel
def _ego_corners(state):
    """Closed ring (5, 2) of the ego box whose rear axle is at state (3,)."""
    cos, sin = np.cos(state[2]), np.sin(state[2])
    ring = np.empty((5, 2))
    for k in range(5):
        along = vehicle.REAR_AXLE_TO_FRONT if k in (0, 3, 4) else -vehicle.REAR_AXLE_TO_REAR
        across = vehicle.WIDTH / 2 if k in (0, 1, 4) else -vehicle.WIDTH / 2
        ring[k, 0] = state[0] + along * cos - across * sin
        ring[k, 1] = state[1] + along * sin + across * cos
    return ring


@kernel
def polygon_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Distance [m] between two polygons given as closed rings (n, 2) and (m, 2); 0 where they overlap."""
    if _inside(a[0, 0], a[0, 1], b) or _inside(b[0, 0], b[0, 1], a):
        return 0.0
    smallest = np.inf
    for i in range(len(a) - 1):
        ax, ay, adx, ady = a[i, 0], a[i, 1], a[i + 1, 0] - a[i, 0], a[i + 1, 1] - a[i, 1]
        for j in range(len(b) - 1):
            bx, by, bdx, bdy = b[j, 0], b[j, 1], b[j + 1, 0] - b[j, 0], b[j + 1, 1] - b[j, 1]
            cross = adx * bdy - ady * bdx
            if cross != 0.0:
                along_a = ((bx - ax) * bdy - (by - ay) * bdx) / cross
                along_b = ((bx - ax) * ady - (by - ay) * adx) / cross
                if 0.0 <= along_a <= 1.0 and 0.0 <= along_b <= 1.0:
                    return 0.0
            smallest = min(smallest, _squared_distance(ax, ay, bx, by, bdx, bdy))
            smallest = min(smallest, _squared_distance(bx, by, ax, ay, adx, ady))
    return np.sqrt(smallest)


@kernel
def _inside(x, y, ring):
    """Whether a closed ring (n, 2) holds a point."""
    inside = False
    for k in range(len(ring) - 1):
        if (ring[k, 1] > y) != (ring[k + 1, 1] > y):
            slope = (ring[k + 1, 0] - ring[k, 0]) / (ring[k + 1, 1] - ring[k, 1])
            inside ^= x < ring[k, 0] + slope * (y - ring[k, 1])
    return inside


@kernel
def _squared_distance(x, y, start_x, start_y, dx, dy):
    """From a point to the segment that starts at (start_x, start_y) and spans (dx, dy)."""
    x, y = x - start_x, y - start_y
    squared = dx * dx + dy * dy
    share = min(max((x * dx + y * dy) / squared, 0.0), 1.0) if squared > 0.0 else 0.0
    return (x - share * dx) ** 2 + (y - share * dy) ** 2
