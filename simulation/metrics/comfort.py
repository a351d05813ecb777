"""Comfort (C): 1 if all of six accelerations, jerks and yaw rates stay within nuPlan's bounds, else 0.

Savitzky-Golay filters (scipy, mode "interp") smooth and differentiate the simulated states, with the windows that the
official code really uses: accelerations one parabola over the whole plan; jerks an even window of 8 steps, then the
derivative of one parabola; yaw rate and acceleration windows of 5. Values are rounded to 8 decimals and must lie
strictly within the bounds (navsim v1.1 `pdm_comfort_metrics.py`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import savgol_filter

from mtdrive.simulation.dynamics.state import ACCELERATION_X, ACCELERATION_Y, HEADING
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.motion import Motion
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import STEP, Scene

if TYPE_CHECKING:
    from mtdrive.simulation.scoring import Scores

QUANTITIES = (
    "longitudinal acceleration",  # [m/s^2]
    "lateral acceleration",  # [m/s^2]
    "jerk",  # [m/s^3]
    "longitudinal jerk",  # [m/s^3]
    "yaw acceleration",  # [rad/s^2]
    "yaw rate",  # [rad/s]
)
LOWER = np.array([-4.05, -4.89, -8.37, -4.13, -1.93, -0.95])
UPPER = np.array([2.40, 4.89, 8.37, 4.13, 1.93, 0.95])


@lru_cache
def _filters(num_steps: int, acceleration_window: int, jerk_window: int) -> np.ndarray:
    """(5, num_steps, num_steps) linear filters, transposed: acceleration, smoothing before jerk, jerk, yaw acceleration
    and yaw rate."""
    times = np.arange(num_steps) * STEP
    step = np.diff(times).mean()

    def matrix(window: int, order: int, derivative: int) -> np.ndarray:
        window = min(window, num_steps)
        return savgol_filter(np.eye(num_steps), window, order, deriv=derivative, delta=step, axis=-1)

    return np.stack(
        [
            matrix(acceleration_window, 2, 0),
            matrix(8, 2, 0),
            matrix(jerk_window, 2, 1),
            matrix(5, 3, 2),
            matrix(5, 2, 1),
        ]
    )


@kernel
def _apply(matrix, series, out):
    """Fill out = round(series @ matrix, 8 decimals)."""
    n = len(series)
    out[:] = 0.0
    for k in range(n):
        for t in range(n):
            out[t] += series[k] * matrix[k, t]
    for t in range(n):
        out[t] = np.rint(out[t] * 1e8) / 1e8


@kernel
def _unwrap(headings, out):
    """Fill out (n,) with headings (n,) [rad] without jumps of a full turn."""
    turns = 0.0
    out[0] = headings[0]
    for t in range(1, len(headings)):
        turns += np.rint((headings[t] - headings[t - 1]) / (2.0 * np.pi))
        out[t] = headings[t] - 2.0 * np.pi * turns


@kernel
def _comfort(longitudinal, lateral, magnitude, headings, filters):
    """Which QUANTITIES are within bounds (N, 6), and their peaks (N, 6), from series (N, n) and filters (5, n, n)."""
    num_rows, num_steps = headings.shape
    within = np.ones((num_rows, 6), dtype=np.bool_)
    peaks = np.zeros((num_rows, 6))
    values, smooth, unwrapped = np.empty(num_steps), np.empty(num_steps), np.empty(num_steps)
    for i in range(num_rows):
        _unwrap(headings[i], unwrapped)
        for q in range(6):
            if q == 0:
                _apply(filters[0], longitudinal[i], values)
            elif q == 1:
                _apply(filters[0], lateral[i], values)
            elif q == 2:
                _apply(filters[1], magnitude[i], smooth)
                _apply(filters[2], smooth, values)
            elif q == 3:
                _apply(filters[1], longitudinal[i], smooth)
                _apply(filters[2], smooth, values)
            else:
                _apply(filters[q - 1], unwrapped, values)
            largest = -1.0
            for value in values:
                if not LOWER[q] < value < UPPER[q]:
                    within[i, q] = False
                share = value / UPPER[q] if value > 0.0 else value / LOWER[q]
                if share > largest:
                    largest, peaks[i, q] = share, value
    return within, peaks


def measure_comfort(
    states: np.ndarray, longitudinal: np.ndarray, *, acceleration_window: int, jerk_window: int
) -> Measurement:
    """Comfort of N plans: 1 or 0.

    Args:
        states: (N, n, 11) simulated states at 10 Hz, columns as in `dynamics.state`.
        longitudinal: (N, n) longitudinal acceleration [m/s^2] that the bounds on it and on its jerk apply to.
        acceleration_window: of the filter that smooths accelerations [steps].
        jerk_window: of the filter that differentiates them [steps].

    Returns:
        Values (N,). Events: which QUANTITIES are within bounds, and the value of each that is nearest to, or farthest
        over, its bound.
    """
    lateral = np.ascontiguousarray(states[..., ACCELERATION_Y])
    magnitude = np.hypot(states[..., ACCELERATION_X], lateral)
    headings = np.ascontiguousarray(states[..., HEADING])
    filters = _filters(states.shape[1], acceleration_window, jerk_window)
    within, peaks = _comfort(np.ascontiguousarray(longitudinal), lateral, magnitude, headings, filters)
    return Measurement(within.all(axis=1).astype(np.float64), {"comfort_ok": within, "comfort_peak": peaks})


def comfort(motion: Motion, surroundings: Surroundings) -> Measurement:
    """C of N plans: 1 or 0. Events: as in `measure_comfort`."""
    num_steps = motion.states.shape[1]
    return measure_comfort(
        motion.states, motion.states[..., ACCELERATION_X], acceleration_window=num_steps, jerk_window=num_steps
    )


def _facts(scene: Scene, scores: Scores, row: int) -> dict:
    """The quantity that is farthest over its bound."""
    peaks = scores.events["comfort_peak"][row]
    bounds = np.where(peaks > 0.0, UPPER, LOWER)
    worst = int(np.argmax(np.where(scores.events["comfort_ok"][row], -np.inf, peaks / bounds)))
    return {"quantity": QUANTITIES[worst], "measured": float(peaks[worst]), "limit": float(bounds[worst])}


COMFORT = Metric(
    column="comfort",
    short="C",
    label="discomfort",
    measure=comfort,
    sentence="Too much {quantity}: {measured} exceeds {limit}.",
    rank=50,
    facts=_facts,
    terms=QUANTITIES,
    events={
        "comfort_ok": "(N, 6) per QUANTITIES: within bounds",
        "comfort_peak": "(N, 6) per QUANTITIES: the value nearest to, or farthest over, its bound",
    },
)
