"""PDM-Closed's plan: simulate and score the proposals and take the best (navsim `PDMClosedPlanner`)."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from mtdrive.simulation.dynamics import simulate
from mtdrive.simulation.dynamics.state import SIZE
from mtdrive.simulation.geometry.frames import normalize_angle, poses_to_local
from mtdrive.simulation.pdm_closed.forecast import Forecast
from mtdrive.simulation.pdm_closed.proposals import Proposals
from mtdrive.simulation.scene import NUM_STEPS, STEP, DrivableMap, Reference
from mtdrive.simulation.scoring import score_states

_STEP_US = 100_000


def plan_references(
    proposals: Proposals,
    forecast: Forecast,
    drivable_map: DrivableMap,
    centerline: np.ndarray,
    origin: np.ndarray,
    velocity: np.ndarray,
    acceleration: np.ndarray,
    timestamp: int,
    metrics: Collection[str],
) -> dict[str, Reference]:
    """PDM-Closed's plan for each score version.

    The proposals are scored in the forecast traffic, with progress normalised over the 15 of them; of equal scores the
    first wins.

    Args:
        proposals: in UTM.
        forecast: the traffic that PDM-Closed expects.
        drivable_map: the map in the local frame.
        centerline: (C, 3) x [m], y [m], heading [rad] in the local frame.
        origin: (3,) UTM pose of the local frame.
        velocity: (2,) of the ego at t0 [m/s], ego frame.
        acceleration: (2,) of the ego at t0 [m/s^2], ego frame.
        timestamp: t0 [us since 1970].
        metrics: names of the score versions.

    Returns:
        By score version.

    Raises:
        MTDriveError: there is no such version.
    """
    local = poses_to_local(proposals.states, origin)
    simulated = simulate(local, velocity, acceleration)
    expected = forecast.observation(origin)
    references = {}
    for metric in metrics:
        scores = score_states(simulated, expected, drivable_map, centerline, metric).score
        states = np.zeros((NUM_STEPS, SIZE))
        states[:, :3] = _sample(local[np.argmax(scores)], timestamp)
        driven = simulate(states[None], velocity, acceleration)[0]
        references[metric] = Reference(states=states, simulated=driven, proposal_scores=scores)
    return references


def _sample(states: np.ndarray, timestamp: int) -> np.ndarray:
    """The plan (41, 3) at the sample times, which the official code truncates to whole microseconds since 1970."""
    steps = np.arange(NUM_STEPS)
    times = ((steps * STEP + timestamp * 1e-6) * 1e6).astype(np.int64) - timestamp
    columns = (states[:, 0], states[:, 1], np.unwrap(states[:, 2]))
    x, y, heading = (np.interp(times, steps * _STEP_US, column) for column in columns)
    return np.column_stack([x, y, normalize_angle(heading)])
