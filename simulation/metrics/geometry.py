"""Compiled planar geometry for the metrics. Touching counts as overlap, as in shapely's `intersects`."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.compiled import kernel

COS_AHEAD = np.cos(np.deg2rad(30.0))  # nuPlan: ahead is less than 30 deg off the heading, behind more than 150 deg


@kernel
def boxes_overlap(x1, y1, cos1, sin1, length1, width1, x2, y2, cos2, sin2, length2, width2):
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
def is_ahead(x, y, cos, sin, other_x, other_y):
    """Whether a point is less than 30 deg off the direction (cos, sin) seen from (x, y)."""
    dx, dy = other_x - x, other_y - y
    return dx * cos + dy * sin > COS_AHEAD * np.sqrt(dx * dx + dy * dy)


@kernel
def is_behind(x, y, cos, sin, other_x, other_y):
    """Whether a point is more than 150 deg off the direction (cos, sin) seen from (x, y)."""
    dx, dy = other_x - x, other_y - y
    return dx * cos + dy * sin < -COS_AHEAD * np.sqrt(dx * dx + dy * dy)


@kernel
def project_on_line(line, x, y):
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
