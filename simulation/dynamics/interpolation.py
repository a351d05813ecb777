"""A planned trajectory as the 10 Hz reference that the tracker follows.

Follows navsim v1.1 `evaluate/pdm_score.py` (transform_trajectory, get_trajectory_as_array) and nuPlan's
`InterpolatedTrajectory`: positions are linear in time, headings are unwrapped first. nuPlan keeps time as whole
microseconds since 1970, truncated from float seconds, so that knots and samples are off by up to 1 us; the same
arithmetic is done here.
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import NUM_STEPS, STEP


@kernel
def wrap_angle(angle: float) -> float:
    """The angle [rad] in [-pi, pi)."""
    return (angle + np.pi) % (2.0 * np.pi) - np.pi


@kernel
def normalize_angle(angle: float) -> float:
    """The angle [rad] in [-pi, pi]."""
    return angle if abs(angle) <= np.pi else np.arctan2(np.sin(angle), np.cos(angle))


@kernel
def _sample(poses, interval, timestamp):
    """See `sample_plans`."""
    num_rows, num_poses, _ = poses.shape
    start = timestamp * 1e-6
    knots = np.zeros(num_poses + 1, dtype=np.int64)
    for k in range(num_poses):
        knots[k + 1] = np.int64((k * interval + interval + start) * 1e6) - timestamp

    lower = np.empty(NUM_STEPS, dtype=np.int64)
    elapsed = np.empty(NUM_STEPS)
    for s in range(NUM_STEPS):
        time = np.int64((s * STEP + start) * 1e6) - timestamp
        time = min(max(time, 0), knots[num_poses])
        upper = min(max(np.searchsorted(knots, time), 1), num_poses)
        lower[s] = upper - 1
        elapsed[s] = time - knots[upper - 1]

    sampled = np.empty((num_rows, NUM_STEPS, 3))
    knot = np.zeros((num_poses + 1, 3))
    for i in range(num_rows):
        turns = 0.0
        previous = 0.0
        for k in range(num_poses):
            heading = normalize_angle(poses[i, k, 2])
            change = heading - previous
            if abs(change) >= np.pi:
                wrapped = wrap_angle(change)
                if wrapped == -np.pi and change > 0:
                    wrapped = np.pi
                turns += wrapped - change
            previous = heading
            knot[k + 1, 0] = poses[i, k, 0]
            knot[k + 1, 1] = poses[i, k, 1]
            knot[k + 1, 2] = heading + turns
        for s in range(NUM_STEPS):
            k = lower[s]
            span = float(knots[k + 1] - knots[k])
            for d in range(3):
                slope = (knot[k + 1, d] - knot[k, d]) / span
                sampled[i, s, d] = slope * elapsed[s] + knot[k, d]
            sampled[i, s, 2] = wrap_angle(sampled[i, s, 2])
    return sampled


def sample_plans(poses: np.ndarray, interval: float, timestamp: int) -> np.ndarray:
    """Sample plans at 10 Hz from t0 to t0 + 4 s.

    Args:
        poses: (N, T, 3) x, y [m], heading [rad] (any turn) in the local frame, pose k at t0 + (k + 1) * interval.
        interval: [s] between poses.
        timestamp: t0 [us since 1970].

    Returns:
        (N, 41, 3) poses; the first is the origin, headings are in [-pi, pi).
    """
    return _sample(poses, interval, timestamp)
