"""Closed-loop simulation of plans: LQR tracker and kinematic bicycle model at 10 Hz (navsim `pdm_simulator.py`)."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.dynamics.bicycle import propagate
from mtdrive.simulation.dynamics.lqr import PROFILE_STEPS, fit_curvatures, fit_speeds, track
from mtdrive.simulation.dynamics.state import ACCELERATION_X, SIZE, STEERING_ANGLE, VELOCITY_X
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import NUM_STEPS


@kernel
def _simulate(references, velocity, acceleration):
    """States (N, 41, 11) from references (N, 41, 3)."""
    simulated = np.zeros((len(references), NUM_STEPS, SIZE))
    speeds = np.empty(PROFILE_STEPS)
    curvatures = np.empty(PROFILE_STEPS)
    for i in range(len(references)):
        reference, states = references[i], simulated[i]
        for d in range(2):
            states[0, VELOCITY_X + d] = velocity[d]
            states[0, ACCELERATION_X + d] = acceleration[d]
        fit_speeds(reference, speeds)
        fit_curvatures(reference, speeds, curvatures)
        for step in range(NUM_STEPS - 1):
            state = states[step]
            command, rate = track(state, state[VELOCITY_X], state[STEERING_ANGLE], reference, speeds, curvatures, step)
            propagate(state, command, rate, states[step + 1])
    return simulated


def simulate(states: np.ndarray, velocity: np.ndarray, acceleration: np.ndarray) -> np.ndarray:
    """Simulate following references for 4 s, starting at the origin of the local frame with straight wheels.

    Args:
        states: (N, 41, >= 3) references at 10 Hz, columns x, y [m], heading [rad] first.
        velocity: (2,) ego at t0 [m/s], ego frame.
        acceleration: (2,) ego at t0 [m/s^2], ego frame.

    Returns:
        (N, 41, 11) states, columns as in `dynamics.state`.
    """
    references = np.ascontiguousarray(states[..., :3], dtype=np.float64)
    return _simulate(references, np.asarray(velocity, dtype=np.float64), np.asarray(acceleration, dtype=np.float64))
