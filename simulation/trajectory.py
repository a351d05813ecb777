"""Planned trajectories: rear-axle poses in the local frame, (T, 3) x [m], y [m], heading [rad].

Pose k is at t0 + (k + 1) * interval. NAVSIM's default is 8 poses at 0.5 s; 40 poses at 0.1 s are accepted as well.
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.errors import MTDriveError

SAMPLINGS = {8: 0.5, 40: 0.1}  # number of poses -> interval [s]; both span the scored horizon of 4 s


def validate_batch(poses: np.ndarray, interval: float) -> tuple[np.ndarray, np.ndarray]:
    """Check the shape of a batch and which of its rows are usable.

    Args:
        poses: (N, T, 3) numbers.
        interval: [s] between poses.

    Returns:
        float64 poses (N, T, 3), and (N,) bool: all values of the row are finite.

    Raises:
        MTDriveError: the poses are no plain numbers, or their shape or interval is not one of SAMPLINGS.
    """
    try:
        poses = np.asarray(poses)
    except ValueError:  # rows of several lengths
        poses = np.empty(0, dtype=object)
    if poses.dtype.kind not in "iuf":
        raise MTDriveError(f"Trajectory poses must be one array of plain numbers, shaped (N, T, 3), not {poses.dtype}.")
    poses = np.ascontiguousarray(poses, dtype=np.float64)
    accepted = " or ".join(f"(N, {count}, 3) at {step} s" for count, step in SAMPLINGS.items())
    if poses.ndim != 3 or poses.shape[2] != 3 or poses.shape[1] not in SAMPLINGS:
        cure = "; give one trajectory as poses[None]" if poses.ndim == 2 else ""
        raise MTDriveError(f"Trajectory poses must be shaped {accepted}, not {poses.shape}{cure}.")
    if not abs(interval - SAMPLINGS[poses.shape[1]]) < 1e-9:
        raise MTDriveError(f"{poses.shape[1]} poses at an interval of {interval} s are not accepted; use {accepted}.")
    return poses, np.isfinite(poses).all(axis=(1, 2))
