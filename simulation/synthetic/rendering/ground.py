"""What lies flat on the ground: surfaces, markings, crosswalks, kerbs, shadows."""

from __future__ import annotations

import numpy as np
from numba import njit

from mtdrive.simulation.synthetic.rendering.scene import Crosswalk, Marking, Material

SURFACE_COLOURS = {
    Material.GRASS: (98, 118, 66),
    Material.PAVEMENT: (160, 156, 150),
    Material.PARKING: (106, 106, 110),
    Material.ROAD: (84, 85, 90),
    Material.GRAVEL: (142, 130, 110),
}
WHITE_PAINT, YELLOW_PAINT = (232, 232, 228), (236, 186, 48)
KERB_FACE, KERB_TOP = (138, 136, 132), (202, 200, 194)
KERB_HEIGHT, KERB_WIDTH = 0.13, 0.24  # [m]
STRIPE, STRIPE_GAP = 0.5, 0.6  # [m] of a zebra crossing
REACH = 160.0  # [m] markings farther away are under a pixel wide


@njit(cache=True)
def ribbon(xy: np.ndarray, half_width: float) -> np.ndarray:
    """The band along a polyline (N, 2), as a polygon (2N, 2): its left edge forwards, its right edge back."""
    n = xy.shape[0]
    out = np.empty((2 * n, 2))
    for i in range(n):
        before, after = xy[i] - xy[max(i - 1, 0)], xy[min(i + 1, n - 1)] - xy[i]
        before = before / max(np.hypot(before[0], before[1]), 1e-12)
        after = after / max(np.hypot(after[0], after[1]), 1e-12)
        along = before + after
        size = np.hypot(along[0], along[1])
        along = along / size if size > 1e-9 else after
        # The mitre keeps the width in a bend; its growth is limited, for sharp corners would shoot out.
        cosine = 1.0 if i in (0, n - 1) else max(along[0] * after[0] + along[1] * after[1], 0.5)
        side = np.array([-along[1], along[0]]) * (half_width / cosine)
        out[i] = xy[i] + side
        out[2 * n - 1 - i] = xy[i] - side
    return out


@njit(cache=True)
def _cut(xy: np.ndarray, arc: np.ndarray, start: float, end: float) -> np.ndarray:
    """The part of a polyline between two arc lengths, corners included."""
    out = np.empty((xy.shape[0] + 2, 2))
    m = 0
    for k in range(2):
        s = start if k == 0 else end
        i = min(max(np.searchsorted(arc, s, side="right") - 1, 0), xy.shape[0] - 2)
        t = (s - arc[i]) / max(arc[i + 1] - arc[i], 1e-12)
        if k == 1:
            for j in range(xy.shape[0]):
                if start < arc[j] < end:
                    out[m] = xy[j]
                    m += 1
        out[m] = xy[i] + (xy[i + 1] - xy[i]) * t
        m += 1
    return out[:m]


def marking_polygons(marking: Marking, eye: np.ndarray) -> list[np.ndarray]:
    """The painted patches (N, 2) of a marking within REACH of the eye (2,)."""
    xy = np.ascontiguousarray(marking.xy, dtype=np.float64)
    if marking.dash is None:
        return [ribbon(xy, marking.width / 2)]
    painted, gap = marking.dash
    arc = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy, axis=0).T))])
    patches = []
    for start in np.arange(0.0, arc[-1], painted + gap):
        piece = _cut(xy, arc, start, min(start + painted, arc[-1]))
        if abs(piece[0, 0] - eye[0]) + abs(piece[0, 1] - eye[1]) < REACH:
            patches.append(ribbon(piece, marking.width / 2))
    return patches


@njit(cache=True)
def _below(polygon: np.ndarray, axis: int, limit: float, sign: float) -> np.ndarray:
    """The part of a convex polygon (N, 2) where sign * (coordinate - limit) <= 0."""
    n = polygon.shape[0]
    out = np.empty((2 * n, 2))
    m = 0
    for i in range(n):
        a, b = polygon[i], polygon[(i + 1) % n]
        u, v = sign * (a[axis] - limit), sign * (b[axis] - limit)
        if u <= 0:
            out[m] = a
            m += 1
        if (u <= 0) != (v <= 0):
            out[m] = a + (b - a) * (u / (u - v))
            m += 1
    return out[:m]


def crosswalk_polygons(crosswalk: Crosswalk) -> list[np.ndarray]:
    """The zebra stripes (N, 2) of a convex crosswalk."""
    c, s = np.cos(crosswalk.heading), np.sin(crosswalk.heading)
    turn = np.array([[c, s], [-s, c]])
    polygon = np.asarray(crosswalk.xy, dtype=np.float64) @ turn.T
    low, high = polygon[:, 1].min(), polygon[:, 1].max()
    stripes = []
    for start in np.arange(low + 0.3, high - 0.2, STRIPE + STRIPE_GAP):
        stripe = _below(_below(np.ascontiguousarray(polygon), 1, start, -1.0), 1, start + STRIPE, 1.0)
        if len(stripe) >= 3:
            stripes.append(stripe @ turn)
    return stripes


def on_ground(xy: np.ndarray, height: float = 0.0) -> np.ndarray:
    """(N, 2) to (N, 3) at one height."""
    return np.column_stack([xy, np.full(len(xy), height)])
