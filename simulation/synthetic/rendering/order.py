"""Painter's order of things that stand beside each other on the ground."""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(cache=True)
def _corners(footprint: np.ndarray) -> np.ndarray:
    """Corners (4, 2), anticlockwise, of a footprint x, y, heading, length, width."""
    c, s = np.cos(footprint[2]), np.sin(footprint[2])
    out = np.empty((4, 2))
    for i in range(4):
        along = 0.5 * footprint[3] * (1.0 if i in (0, 3) else -1.0)
        across = 0.5 * footprint[4] * (1.0 if i in (0, 1) else -1.0)
        out[i, 0] = footprint[0] + along * c - across * s
        out[i, 1] = footprint[1] + along * s + across * c
    return out


@njit(cache=True)
def _separated_before(a: np.ndarray, b: np.ndarray, eye: np.ndarray) -> int:
    """1 if a side line of rectangle a puts b on the eye's side, -1 if it puts a there, 0 if none separates them."""
    for i in range(4):
        p, q = a[i], a[(i + 1) % 4]
        nx, ny = q[1] - p[1], p[0] - q[0]  # outward
        nearest = np.inf
        for j in range(4):
            nearest = min(nearest, (b[j, 0] - p[0]) * nx + (b[j, 1] - p[1]) * ny)
        if nearest >= -1e-9:
            return 1 if (eye[0] - p[0]) * nx + (eye[1] - p[1]) * ny > 0 else -1
    return 0


@njit(cache=True)
def painters_order(footprints: np.ndarray, eye: np.ndarray) -> np.ndarray:
    """Indices (N,) from the things to draw first to those to draw last.

    footprints: (N, 5) x, y, heading, length, width; eye: (2,). Of two things that a side line of either
    separates, the one on the eye's side comes later; where that leaves a choice, the farther one comes first.
    Distance alone would draw a long van over the pedestrian who stands beside it.
    """
    n = footprints.shape[0]
    corners = np.empty((n, 4, 2))
    distance = np.empty(n)
    for i in range(n):
        corners[i] = _corners(footprints[i])
        distance[i] = np.hypot(footprints[i, 0] - eye[0], footprints[i, 1] - eye[1])
    hides = np.zeros((n, n), dtype=np.bool_)  # hides[i, j]: i stands before j
    for i in range(n):
        for j in range(i):
            side = _separated_before(corners[i], corners[j], eye)
            if side == 0:
                side = -_separated_before(corners[j], corners[i], eye)
            if side == 0:
                side = 1 if distance[j] < distance[i] else -1
            hides[j, i] = side > 0
            hides[i, j] = side < 0
    order = np.empty(n, dtype=np.int64)
    waiting = np.ones(n, dtype=np.bool_)
    for k in range(n):
        best, best_free = -1, False
        for i in range(n):
            if not waiting[i]:
                continue
            free = True
            for j in range(n):
                if waiting[j] and hides[i, j]:
                    free = False
                    break
            if best < 0 or (free and not best_free) or (free == best_free and distance[i] > distance[best]):
                best, best_free = i, free
        order[k] = best
        waiting[best] = False
    return order
