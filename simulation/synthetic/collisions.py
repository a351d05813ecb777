"""Do boxes touch? The driver's own checks of a planned drive (the scorer has its own, official ones)."""

from __future__ import annotations

import numpy as np
from numba import njit

from mtdrive.simulation.vehicle import LENGTH, REAR_AXLE_TO_CENTER, WIDTH

CLEAR = 999  # no violation
LOOKAHEAD = (
    0,
    3,
    6,
    9,
    10,
)  # [0.1 s] the scorer looks up to 0.9 s ahead at constant velocity; one step more to be safe


@njit(cache=True)
def boxes_touch(a: np.ndarray, half_a: np.ndarray, b: np.ndarray, half_b: np.ndarray) -> bool:
    """Whether oriented boxes a, b (x, y, heading) with half sizes (length, width) overlap (separating axes)."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    reach = np.hypot(half_a[0], half_a[1]) + np.hypot(half_b[0], half_b[1])
    if dx * dx + dy * dy > reach * reach:
        return False
    ca, sa = np.cos(a[2]), np.sin(a[2])
    cb, sb = np.cos(b[2]), np.sin(b[2])
    c, s = abs(ca * cb + sa * sb), abs(ca * sb - sa * cb)
    if abs(dx * ca + dy * sa) > half_a[0] + half_b[0] * c + half_b[1] * s:
        return False
    if abs(-dx * sa + dy * ca) > half_a[1] + half_b[0] * s + half_b[1] * c:
        return False
    if abs(dx * cb + dy * sb) > half_b[0] + half_a[0] * c + half_a[1] * s:
        return False
    return abs(-dx * sb + dy * cb) <= half_b[1] + half_a[0] * s + half_a[1] * c


@njit(cache=True)
def first_conflict(
    poses: np.ndarray,
    speeds: np.ndarray,
    others: np.ndarray,
    halves: np.ndarray,
    present: np.ndarray,
    margin: np.ndarray,
    lookahead: np.ndarray,
) -> tuple[int, int]:
    """First step at which an ego plan touches another box, now or within the look-ahead, and which; CLEAR, -1 if none.

    poses: (T, 3) rear axle, speeds: (T,). others: (A, U, 3) box centres, halves: (A, 2), present: (A, U) bool, U >= T.
    margin: (2,) added to the ego's half length and half width. lookahead: (L,) steps projected at constant velocity
    (the first is 0). Boxes wholly behind the rear axle do not count; a standing ego has no look-ahead.
    """
    half = np.array([LENGTH / 2, WIDTH / 2])
    centre = np.empty(3)
    for t in range(poses.shape[0]):
        cos, sin = np.cos(poses[t, 2]), np.sin(poses[t, 2])
        for k in range(lookahead.shape[0]):
            ahead = lookahead[k]
            if t + ahead >= others.shape[1] or (k > 0 and speeds[t] < 5e-3):
                break
            reach = REAR_AXLE_TO_CENTER + 0.1 * ahead * speeds[t]
            centre[0] = poses[t, 0] + reach * cos
            centre[1] = poses[t, 1] + reach * sin
            centre[2] = poses[t, 2]
            for a in range(others.shape[0]):
                if not present[a, t + ahead]:
                    continue
                dx, dy = others[a, t + ahead, 0] - poses[t, 0], others[a, t + ahead, 1] - poses[t, 1]
                if dx * cos + dy * sin < -halves[a, 0]:
                    continue
                if boxes_touch(centre, half + margin, others[a, t + ahead], halves[a]):
                    return t, a
    return CLEAR, -1


@njit(cache=True)
def any_overlap(poses: np.ndarray, halves: np.ndarray, present: np.ndarray) -> bool:
    """Whether two of the boxes (A, T, 3) ever overlap while present (A, T)."""
    for a in range(poses.shape[0]):
        for b in range(a + 1, poses.shape[0]):
            for t in range(0, poses.shape[1], 2):
                if present[a, t] and present[b, t] and boxes_touch(poses[a, t], halves[a], poses[b, t], halves[b]):
                    return True
    return False
