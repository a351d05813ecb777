"""Compiled planar geometry for the metrics. Touching counts as overlap, as in shapely's `intersects`."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.runtime.kernels import kernel

COS_AHEAD = np.cos(np.deg2rad(30.0))  # nuPlan: ahead is less than 30 deg off the heading, behind more than 150 deg


@kernel
def boxes_overlap(
    x1: float,
    y1: float,
    cos1: float,
    sin1: float,
    length1: float,
    width1: float,
    x2: float,
    y2: float,
    cos2: float,
    sin2: float,
    length2: float,
    width2: float,
) -> bool:
    """Whether two closed oriented boxes (centre, direction, half length, half width) share a point.

    Separating axis test. A box of no length is a segment, for which the test is exact as well.
    """
    dx, dy = x2 - x1, y2 - y1
    along = abs(cos1 * cos2 + sin1 * sin2)
    across = abs(cos1 * sin2 - sin1 * cos2)
    return (
        abs(dx * cos1 + dy * sin1) <= length1 + length2 * along + width2 * across
        and abs(dy * cos1 - dx * sin1) <= width1 + length2 * across + width2 * along
        and abs(dx * cos2 + dy * sin2) <= length2 + length1 * along + width1 * across
        and abs(dy * cos2 - dx * sin2) <= width2 + length1 * across + width1 * along
    )


@kernel
def is_ahead(x: float, y: float, cos: float, sin: float, other_x: float, other_y: float) -> bool:
    """Whether a point is less than 30 deg off the direction (cos, sin) seen from (x, y)."""
    dx, dy = other_x - x, other_y - y
    return dx * cos + dy * sin > COS_AHEAD * np.sqrt(dx * dx + dy * dy)


@kernel
def is_behind(x: float, y: float, cos: float, sin: float, other_x: float, other_y: float) -> bool:
    """Whether a point is more than 150 deg off the direction (cos, sin) seen from (x, y)."""
    dx, dy = other_x - x, other_y - y
    return dx * cos + dy * sin < -COS_AHEAD * np.sqrt(dx * dx + dy * dy)


@kernel
def project_on_line(line: np.ndarray, x: float, y: float) -> tuple[float, float]:
    """Nearest point of a polyline (C, >= 2): its distance along the line [m] and its distance to (x, y) [m].

    Of equally near points the first counts, as in GEOS.
    """
    best = np.inf
    position = 0.0
    travelled = 0.0
    for k in range(len(line) - 1):
        ex, ey = line[k + 1, 0] - line[k, 0], line[k + 1, 1] - line[k, 1]
        dx, dy = x - line[k, 0], y - line[k, 1]
        squared = ex * ex + ey * ey
        share = min(max((dx * ex + dy * ey) / squared, 0.0), 1.0) if squared > 0.0 else 0.0
        gap = (dx - share * ex) ** 2 + (dy - share * ey) ** 2
        length = np.sqrt(squared)
        if gap < best:
            best = gap
            position = travelled + share * length
        travelled += length
    return position, np.sqrt(best)


@kernel
def nearby_segment(line: np.ndarray, x: float, y: float, distance: float, hint: int) -> int:
    """A segment of a polyline (C, >= 2) at most `distance` [m] from (x, y), or -1; the search begins at hint."""
    count = len(line) - 1
    for k in range(count):
        s = (hint + k) % count
        x1, y1, x2, y2 = line[s, 0], line[s, 1], line[s + 1, 0], line[s + 1, 1]
        if x < min(x1, x2) - distance or x > max(x1, x2) + distance:
            continue
        if y < min(y1, y2) - distance or y > max(y1, y2) + distance:
            continue
        ex, ey, dx, dy = x2 - x1, y2 - y1, x - x1, y - y1
        squared = ex * ex + ey * ey
        share = min(max((dx * ex + dy * ey) / squared, 0.0), 1.0) if squared > 0.0 else 0.0
        if (dx - share * ex) ** 2 + (dy - share * ey) ** 2 <= distance * distance:
            return s
    return -1


@kernel
def box_meets_polygon(
    x: float, y: float, cos: float, sin: float, length: float, width: float, xy: np.ndarray, ring_start: np.ndarray
) -> bool:
    """Whether a closed oriented box (centre, direction, half length, half width) meets a closed polygon.

    The polygon's rings lie at xy[ring_start[r]:ring_start[r + 1]]. They meet if an edge meets the box, or if the box
    lies inside.
    """
    inside = False
    for r in range(len(ring_start) - 1):
        for v in range(ring_start[r], ring_start[r + 1] - 1):
            px, py = (xy[v, 0] - x) * cos + (xy[v, 1] - y) * sin, (xy[v, 1] - y) * cos - (xy[v, 0] - x) * sin
            qx = (xy[v + 1, 0] - x) * cos + (xy[v + 1, 1] - y) * sin
            qy = (xy[v + 1, 1] - y) * cos - (xy[v + 1, 0] - x) * sin
            # in the box's frame: separating axes are the two of the box and the normal of the edge
            if max(px, qx) >= -length and min(px, qx) <= length and max(py, qy) >= -width and min(py, qy) <= width:
                cross = px * qy - py * qx
                if abs(cross) <= length * abs(qy - py) + width * abs(qx - px):
                    return True
            if (py > 0.0) != (qy > 0.0) and ((px * qy - py * qx > 0.0) == (qy > py)):
                inside = not inside
    return inside
