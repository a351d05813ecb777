"""The ego's footprint along simulated states, shared by the metrics."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mtdrive.simulation import vehicle
from mtdrive.simulation.dynamics.state import HEADING, VELOCITY_X, VELOCITY_Y, X, Y
from mtdrive.simulation.metrics.areas import Areas, find_areas
from mtdrive.simulation.metrics.polygon_index import PolygonIndex
from mtdrive.simulation.runtime.kernels import kernel

HALF_LENGTH = vehicle.LENGTH / 2.0
HALF_WIDTH = vehicle.WIDTH / 2.0
CORNERS = ("front left", "rear left", "rear right", "front right")  # order in Motion.points


class Motion(NamedTuple):
    """N simulated plans over 41 steps, in the local frame."""

    states: np.ndarray
    """(N, 41, 11) simulated states, columns as in `dynamics.state`."""
    frames: np.ndarray
    """(N, 41, 4) x [m], y [m] of the footprint's centre, and cos, sin of its heading."""
    speeds: np.ndarray
    """(N, 41) [m/s], never negative."""
    points: np.ndarray
    """(N, 41, 5, 2) corners of the footprint in the order of CORNERS, then its centre [m]."""
    areas: Areas
    """Areas of the map that the footprint is on."""


@kernel
def _footprints(states):
    num_rows, num_steps, _ = states.shape
    frames = np.empty((num_rows, num_steps, 4))
    speeds = np.empty((num_rows, num_steps))
    points = np.empty((num_rows, num_steps, 5, 2))
    for i in range(num_rows):
        for t in range(num_steps):
            state = states[i, t]
            cos, sin = np.cos(state[HEADING]), np.sin(state[HEADING])
            x = state[X] + vehicle.REAR_AXLE_TO_CENTER * cos
            y = state[Y] + vehicle.REAR_AXLE_TO_CENTER * sin
            frames[i, t, 0], frames[i, t, 1], frames[i, t, 2], frames[i, t, 3] = x, y, cos, sin
            speeds[i, t] = np.hypot(state[VELOCITY_X], state[VELOCITY_Y])
            for corner in range(4):
                ahead = HALF_LENGTH if corner == 0 or corner == 3 else -HALF_LENGTH
                left = HALF_WIDTH if corner < 2 else -HALF_WIDTH
                points[i, t, corner, 0] = x + ahead * cos - left * sin
                points[i, t, corner, 1] = y + ahead * sin + left * cos
            points[i, t, 4, 0], points[i, t, 4, 1] = x, y
    return frames, speeds, points


def build_motion(states: np.ndarray, polygon_index: PolygonIndex) -> Motion:
    """Footprints and areas of simulated states (N, 41, 11)."""
    frames, speeds, points = _footprints(states)
    return Motion(states, frames, speeds, points, find_areas(points, polygon_index))
