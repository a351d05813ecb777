"""History comfort (HC): comfort over the recorded past and the simulated plan together.

The past is the recorded ego on a 10 Hz grid from the oldest of the four history frames, by their real timestamps; the
grid's last point is dropped, so that 14 or 15 states come before the 41 simulated ones. Its angular velocity and
acceleration are 0. The quantities and bounds are those of `comfort`, but the longitudinal acceleration is that of the
footprint's centre, accelerations are smoothed over 8 steps and jerks taken over 15. Without a past (PDM-Closed's own
scoring, the human filter) the value is 1 (navsim v2.2 `PDMScorer._calculate_history_comfort`).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mtdrive.simulation import vehicle
from mtdrive.simulation.dynamics.state import (
    ACCELERATION_X,
    ACCELERATION_Y,
    ANGULAR_ACCELERATION,
    ANGULAR_VELOCITY,
    HEADING,
    SIZE,
    VELOCITY_X,
    VELOCITY_Y,
    X,
    Y,
)
from mtdrive.simulation.metrics.comfort import COMFORT, QUANTITIES, measure_comfort
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.motion import Motion
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.scene import Scene

GRID_US = 100_000
ACCELERATION_WINDOW = 8
JERK_WINDOW = 15


def recorded_past(scene: Scene) -> np.ndarray:
    """(14 or 15, 11) states of the recorded ego before t0 at 10 Hz, columns as in `dynamics.state`."""
    times = np.asarray(scene.history_timestamps)
    grid = np.arange(times[0], times[-1], GRID_US)[:-1]
    known = np.zeros((len(times), SIZE))
    known[:, [X, Y]] = scene.history_poses[:, :2]
    known[:, HEADING] = np.unwrap(scene.history_poses[:, 2])
    known[:, [VELOCITY_X, VELOCITY_Y]] = scene.history_velocity
    known[:, [ACCELERATION_X, ACCELERATION_Y]] = scene.history_acceleration
    columns = [np.interp(grid - times[0], times - times[0], column) for column in known.T]
    return np.column_stack(columns)


def history_comfort(motion: Motion, surroundings: Surroundings) -> Measurement:
    """HC of N plans: 1 or 0. Events: as in `comfort`."""
    count, past = len(motion.states), surroundings.past
    if past is None:
        shape = (count, len(QUANTITIES))
        return Measurement(np.ones(count), {"comfort_ok": np.ones(shape, dtype=bool), "comfort_peak": np.zeros(shape)})
    states = np.concatenate([np.broadcast_to(past, (count, *past.shape)), motion.states], axis=1)
    turning = states[..., ANGULAR_VELOCITY] ** 2 + states[..., ANGULAR_ACCELERATION]
    return measure_comfort(
        states,
        states[..., ACCELERATION_X] + vehicle.REAR_AXLE_TO_CENTER * turning,
        acceleration_window=ACCELERATION_WINDOW,
        jerk_window=JERK_WINDOW,
    )


HISTORY_COMFORT = replace(COMFORT, column="history_comfort", short="HC", measure=history_comfort)
