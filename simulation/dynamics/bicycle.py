"""Kinematic bicycle with first-order lags on acceleration and steering (navsim `batch_kinematic_bicycle.py`)."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation import vehicle
from mtdrive.simulation.dynamics.interpolation import wrap_angle
from mtdrive.simulation.dynamics.state import (
    ACCELERATION_X,
    ACCELERATION_Y,
    ANGULAR_ACCELERATION,
    ANGULAR_VELOCITY,
    HEADING,
    STEERING_ANGLE,
    STEERING_RATE,
    VELOCITY_X,
    VELOCITY_Y,
    X,
    Y,
)
from mtdrive.simulation.runtime.kernels import kernel

MAX_STEERING_ANGLE = np.pi / 3  # [rad]
ACCELERATION_LAG = 0.2  # [s]
STEERING_LAG = 0.05  # [s]
STEP = 100_000 * 1e-6  # [s] 0.1 s as nuPlan rounds it (whole microseconds times 1e-6)


@kernel
def propagate(state: np.ndarray, acceleration: float, steering_rate: float, out: np.ndarray) -> None:
    """Fill out (11,), the state one step after `state` (11,), for commands [m/s^2] and [rad/s]; forward Euler."""
    speed, heading, steering = state[VELOCITY_X], state[HEADING], state[STEERING_ANGLE]
    lagged = STEP / (STEP + ACCELERATION_LAG) * (acceleration - state[ACCELERATION_X]) + state[ACCELERATION_X]
    wanted = STEP * steering_rate + steering
    rate = (STEP / (STEP + STEERING_LAG) * (wanted - steering) + steering - steering) / STEP

    out[X] = state[X] + speed * np.cos(heading) * STEP
    out[Y] = state[Y] + speed * np.sin(heading) * STEP
    out[HEADING] = wrap_angle(heading + speed * np.tan(steering) / vehicle.WHEEL_BASE * STEP)
    out[VELOCITY_X] = speed + lagged * STEP
    out[VELOCITY_Y] = 0.0
    out[ACCELERATION_X] = lagged
    out[ACCELERATION_Y] = 0.0
    out[STEERING_ANGLE] = min(max(steering + rate * STEP, -MAX_STEERING_ANGLE), MAX_STEERING_ANGLE)
    out[STEERING_RATE] = rate
    out[ANGULAR_VELOCITY] = out[VELOCITY_X] * np.tan(out[STEERING_ANGLE]) / vehicle.WHEEL_BASE
    out[ANGULAR_ACCELERATION] = (out[ANGULAR_VELOCITY] - state[ANGULAR_VELOCITY]) / STEP
