"""Two-frame extended comfort (EC): 1 if the plans of two successive frames agree in their dynamics, else 0.

Over the time that both simulated plans cover, the root mean square differences between their accelerations, jerks, yaw
rates and yaw accelerations must stay within LIMITS. Both are smoothed by Savitzky-Golay filters (parabolas;
windows of 8 steps for the acceleration, 15 for its derivative, 5 for those of the heading) and rounded to 8 decimals
(navsim v2.2 `ego_is_two_frame_extended_comfort` and `SceneAggregator`).
"""

from __future__ import annotations

import numpy as np
from scipy.signal import savgol_filter

from mtdrive.simulation.dynamics.state import ACCELERATION_X, ACCELERATION_Y, HEADING
from mtdrive.simulation.scene import STEP

EXTENDED_COMFORT = "two_frame_extended_comfort"
QUANTITIES = (
    "acceleration",  # [m/s^2]
    "jerk",  # [m/s^3]
    "yaw rate",  # [rad/s]
    "yaw acceleration",  # [rad/s^2]
)
LIMITS = np.array([0.7, 0.5, 0.1, 0.1])
MAX_GAP = 0.55  # [s] between the starts of adjacent frames
_DECIMALS = 8


def adjacent_frames(log_names: np.ndarray, times: np.ndarray) -> np.ndarray:
    """(P, 2) rows (now, previous) of the frames that have a previous frame.

    The previous frame is the last one of the same log that starts before, at most MAX_GAP earlier (navsim v2.2
    `infer_start_adjacent_mapping`).

    Args:
        log_names: (N,) str.
        times: (N,) start of the frames [s].
    """
    order = np.lexsort([times, log_names])
    now, previous = order[1:], order[:-1]
    near = _steps(times[now] - times[previous]) > 0
    near &= (times[now] - times[previous] <= MAX_GAP) & (log_names[now] == log_names[previous])
    return np.column_stack([now[near], previous[near]])


def extended_comfort(states: np.ndarray, times: np.ndarray, now: np.ndarray, previous: np.ndarray) -> np.ndarray:
    """(P,) EC of P pairs of plans: 1 or 0.

    Args:
        states: (N, 41, 11) simulated plans.
        times: (N,) when they start [s].
        now: (P,) rows of the later plans.
        previous: (P,) rows of the earlier plans.
    """
    within = differences(states[now], states[previous], times[now] - times[previous]) <= LIMITS
    return np.all(within, axis=1).astype(np.float64)


def differences(now: np.ndarray, previous: np.ndarray, gaps: np.ndarray) -> np.ndarray:
    """(P, 4) root mean square differences, one column for each of QUANTITIES.

    Args:
        now: (P, 41, 11) simulated states of the later plans.
        previous: (P, 41, 11) simulated states of the earlier plans.
        gaps: (P,) how much earlier the previous plans start [s]; 0 compares two plans of one frame.
    """
    squares = np.empty((len(gaps), len(QUANTITIES)))
    steps = _steps(gaps)
    for shift in np.unique(steps):
        rows = steps == shift
        shared = now.shape[1] - shift
        difference = _smoothed(now[rows, :shared]) - _smoothed(previous[rows, shift:])
        squares[rows] = np.mean(difference**2, axis=2).T
    return np.sqrt(squares)


def _steps(gaps: np.ndarray) -> np.ndarray:
    return np.rint(gaps / STEP).astype(np.int64)


def _smoothed(states: np.ndarray) -> np.ndarray:
    """(4, P, T) QUANTITIES along states (P, T, 11)."""
    step = np.diff(np.arange(states.shape[1]) * STEP).mean()
    magnitude = np.hypot(states[..., ACCELERATION_X], states[..., ACCELERATION_Y])
    acceleration = np.round(savgol_filter(magnitude, 8, 2), _DECIMALS)
    heading = np.unwrap(states[..., HEADING], axis=1)
    derivatives = [
        savgol_filter(acceleration, 15, 2, deriv=1, delta=step),
        savgol_filter(heading, 5, 2, deriv=1, delta=step),
        savgol_filter(heading, 5, 2, deriv=2, delta=step),
    ]
    return np.stack([acceleration, *np.round(derivatives, _DECIMALS)])
