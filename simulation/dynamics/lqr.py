"""Tracking of a 10 Hz reference by nuPlan's decoupled LQR (navsim `batch_lqr.py`, `batch_lqr_utils.py`).

The reference's speed and curvature profiles are regularised least-squares fits to its poses. navsim solves them
for the derivatives, with a dense pseudo-inverse per trajectory. Solved for the profile itself, the speed fit has one
normal matrix for all trajectories (its inverse is a constant here), the curvature fit a tridiagonal one.

Longitudinal: one step of LQR on the speed error at the end of the horizon, constant acceleration.
Lateral: states lateral error, heading error, steering angle; input steering rate, constant over the horizon; only
the errors at the end of the horizon are weighted.
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation import vehicle
from mtdrive.simulation.dynamics.interpolation import normalize_angle
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import NUM_STEPS, STEP

HORIZON_STEPS = 10  # 1 s
SPEED_WEIGHT = 10.0
ACCELERATION_WEIGHT = 1.0
LATERAL_ERROR_WEIGHT = 1.0
HEADING_ERROR_WEIGHT = 10.0  # the steering angle itself has weight 0
STEERING_RATE_WEIGHT = 1.0
ACCELERATION_PENALTY = 1e-4  # navsim `jerk_penalty`
CURVATURE_RATE_PENALTY = 1e-2
INITIAL_CURVATURE_PENALTY = 1e-10
STOPPING_GAIN = 0.5  # [1/s]
STOPPING_SPEED = 0.2  # [m/s] below, for ego and reference, a proportional controller brakes and steering holds

PROFILE_STEPS = NUM_STEPS - 1


def _speed_operator() -> np.ndarray:
    """(40, 40), row k: the fitted speeds [m/s] that a displacement of 1 m along the heading in step k adds.

    Minimises sum (s_k - dt v_k)^2 + ACCELERATION_PENALTY |R a|^2 with a_k = (v_k+1 - v_k) / dt. What navsim calls a
    jerk penalty is none: its difference matrix loses the upper diagonal but for the last row, so that R takes the
    accelerations themselves, and only the last time a difference.
    """
    accelerations = np.diff(np.eye(PROFILE_STEPS), axis=0) / STEP
    penalised = accelerations[:-1].copy()
    penalised[-1] -= accelerations[-1]
    normal = STEP**2 * np.eye(PROFILE_STEPS) + ACCELERATION_PENALTY * penalised.T @ penalised
    return np.linalg.inv(normal) * STEP


SPEED_OPERATOR = _speed_operator()


@kernel
def fit_speeds(reference: np.ndarray, speeds: np.ndarray) -> None:
    """Fill speeds (40,) [m/s] from a reference (41, 3) of poses."""
    speeds[:] = 0.0
    for k in range(PROFILE_STEPS):
        dx = reference[k + 1, 0] - reference[k, 0]
        dy = reference[k + 1, 1] - reference[k, 1]
        along = dx * np.cos(reference[k, 2]) + dy * np.sin(reference[k, 2])
        for i in range(PROFILE_STEPS):
            speeds[i] += SPEED_OPERATOR[k, i] * along


@kernel
def fit_curvatures(reference: np.ndarray, speeds: np.ndarray, curvatures: np.ndarray) -> None:
    """Fill curvatures (40,) [1/m] from a reference (41, 3) of poses and its fitted speeds (40,).

    Minimises sum (turn_k - dt v_k c_k)^2 + CURVATURE_RATE_PENALTY sum ((c_k+1 - c_k) / dt)^2
    + INITIAL_CURVATURE_PENALTY c_0^2. Elimination of the tridiagonal normal matrix carries on the surplus of its
    diagonal over its off-diagonal instead of the diagonal, so that nothing cancels where all speeds are tiny.
    """
    coupling = CURVATURE_RATE_PENALTY / STEP**2
    pivots = np.empty(PROFILE_STEPS)
    last = PROFILE_STEPS - 1
    surplus = INITIAL_CURVATURE_PENALTY
    right = 0.0
    for k in range(PROFILE_STEPS):
        turn = reference[k + 1, 2] - reference[k, 2]
        gain = STEP * speeds[k]
        surplus += gain * gain
        right += gain * normalize_angle(turn)
        pivots[k] = surplus + coupling if k < last else surplus
        curvatures[k] = right
        surplus *= coupling / pivots[k]
        right *= coupling / pivots[k]
    curvatures[last] /= pivots[last]
    for k in range(last - 1, -1, -1):
        curvatures[k] = (curvatures[k] + coupling * curvatures[k + 1]) / pivots[k]


@kernel
def _steering_rate(lateral_error, heading_error, steering_angle, speed, acceleration, curvatures, step, last):
    """Steering rate [rad/s] that minimises the weighted errors at the end of the horizon."""
    response_lateral, response_heading, response_steering = 0.0, 0.0, 0.0  # errors per unit of steering rate
    gained = 0.0
    for k in range(HORIZON_STEPS):
        travel = (speed + gained) * STEP
        gained += acceleration * STEP
        curvature = curvatures[min(step + k, last)]
        lateral_error += travel * heading_error
        per_angle = travel / vehicle.WHEEL_BASE
        heading_error += per_angle * steering_angle - travel * curvature
        response_lateral += travel * response_heading
        response_heading += per_angle * response_steering
        response_steering += STEP
    heading_error = normalize_angle(heading_error)
    lateral_gain = response_lateral * LATERAL_ERROR_WEIGHT
    heading_gain = response_heading * HEADING_ERROR_WEIGHT
    penalty = lateral_gain * response_lateral + heading_gain * response_heading + STEERING_RATE_WEIGHT
    return -(lateral_gain * lateral_error + heading_gain * heading_error) / penalty


@kernel
def track(
    pose: np.ndarray,
    speed: float,
    steering_angle: float,
    reference: np.ndarray,
    speeds: np.ndarray,
    curvatures: np.ndarray,
    step: int,
) -> tuple[float, float]:
    """Commands at one step.

    Args:
        pose: (>= 3,) x [m], y [m], heading [rad] of the ego.
        speed: of the ego [m/s].
        steering_angle: of the ego [rad].
        reference: (41, 3) poses to follow.
        speeds: (40,) fitted to the reference [m/s].
        curvatures: (40,) fitted to the reference [1/m].
        step: index of the current time.

    Returns:
        acceleration [m/s^2] and steering rate [rad/s].
    """
    last = min(step + HORIZON_STEPS, PROFILE_STEPS - 1)
    if speeds[last] <= STOPPING_SPEED and speed <= STOPPING_SPEED:
        return -STOPPING_GAIN * (speed - speeds[last]), 0.0

    horizon = HORIZON_STEPS * STEP
    gain = horizon * SPEED_WEIGHT / (horizon * SPEED_WEIGHT * horizon + ACCELERATION_WEIGHT)
    acceleration = -gain * (speed - speeds[last])

    heading = reference[step, 2]
    dx, dy = pose[0] - reference[step, 0], pose[1] - reference[step, 1]
    lateral_error = -dx * np.sin(heading) + dy * np.cos(heading)
    heading_error = normalize_angle(pose[2] - heading)
    rate = _steering_rate(lateral_error, heading_error, steering_angle, speed, acceleration, curvatures, step, last)
    return acceleration, rate
