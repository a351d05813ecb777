"""Shapes made of flat convex faces and round limbs, and their way into the picture.

A face is a convex polygon seen from the side from which its corners run anticlockwise (or from both). A
limb is a thick segment with a radius at each end: legs, poles, crowns of trees (both ends in one place),
cones. Its outline is computed in the picture, so that it looks round from everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numba import njit

from mtdrive.simulation.camera import clip_polygon

_ROUND_CORNERS = 12


@dataclass(frozen=True)
class Mesh:
    """P primitives, drawn in this order; hidden faces are dropped, so convex parts need no further sorting."""

    vertices: np.ndarray
    """(V, 3) points of all primitives [m]."""

    start: np.ndarray
    """(P + 1,) int64 offsets of the primitives into the vertices."""

    radii: np.ndarray
    """(P, 2) radius at each end of a limb [m], NaN for a face."""

    colours: np.ndarray
    """(P, 3) red, green, blue, 0..255."""

    glowing: np.ndarray
    """(P,) bool, whether it is neither shaded nor hazed."""

    two_sided: np.ndarray
    """(P,) bool, whether a face shows from behind as well."""

    flat: np.ndarray
    """(P,) bool, whether a limb is cut off square instead of rounded."""


class MeshBuilder:
    """Collects primitives; x forward, y left, z up, origin on the ground under the object's centre."""

    def __init__(self) -> None:
        self._points: list[np.ndarray] = []
        self._rows: list[tuple] = []

    def face(self, points, colour, *, glowing: bool = False, two_sided: bool = False) -> None:
        """A convex polygon; points: (N, 3), anticlockwise from its visible side."""
        self._points.append(np.asarray(points, dtype=np.float64))
        self._rows.append((np.nan, np.nan, colour, glowing, two_sided, False))

    def faces(self, polygons: np.ndarray, colour) -> None:
        """Convex polygons of one colour; polygons: (F, N, 3), each as in `face`."""
        self._points.extend(polygons)
        self._rows.extend([(np.nan, np.nan, colour, False, False, False)] * len(polygons))

    def limb(self, start, end, colour, radius: float, end_radius: float | None = None, *, glowing: bool = False,
             flat: bool = False) -> None:  # fmt: skip
        """A thick segment between two points (3,)."""
        self._points.append(np.array([start, end], dtype=np.float64))
        end_radius = radius if end_radius is None else end_radius
        self._rows.append((radius, end_radius, colour, glowing, False, flat))

    def ball(self, centre, colour, radius: float, *, glowing: bool = False) -> None:
        """A sphere."""
        self.limb(centre, centre, colour, radius, glowing=glowing)

    def extrusion(self, profile, right: Sequence[float], left: Sequence[float], colours) -> None:
        """A convex side profile (N, 2) of x, z, anticlockwise as seen from the right, widened across.

        right, left: y of the two flanks at every corner (N,). colours: N colours, that of the strip after each
        corner, and a last one for both flanks.
        """
        profile = np.asarray(profile, dtype=np.float64)
        on_right = np.column_stack([profile[:, 0], right, profile[:, 1]])
        on_left = np.column_stack([profile[:, 0], left, profile[:, 1]])
        for i in range(len(profile)):
            j = (i + 1) % len(profile)
            self.face([on_right[j], on_right[i], on_left[i], on_left[j]], colours[i])
        self.face(on_right, colours[-1])
        self.face(on_left[::-1], colours[-1])

    def block(self, x: tuple[float, float], y: tuple[float, float], z: tuple[float, float], colour) -> None:
        """An upright cuboid between the given limits."""
        profile = [(x[0], z[0]), (x[1], z[0]), (x[1], z[1]), (x[0], z[1])]
        self.extrusion(profile, [y[0]] * 4, [y[1]] * 4, [colour] * 5)

    def build(self) -> Mesh:
        """The mesh of everything added."""
        first, second, colours, glowing, two_sided, flat = zip(*self._rows, strict=True)
        return Mesh(
            vertices=np.concatenate(self._points),
            start=np.concatenate([[0], np.cumsum([len(points) for points in self._points])]).astype(np.int64),
            radii=np.column_stack([first, second]),
            colours=np.array(colours, dtype=np.float64),
            glowing=np.array(glowing),
            two_sided=np.array(two_sided),
            flat=np.array(flat),
        )


@njit(cache=True)
def picture_polygons(
    vertices: np.ndarray,
    start: np.ndarray,
    radii: np.ndarray,
    colours: np.ndarray,
    glowing: np.ndarray,
    two_sided: np.ndarray,
    flat: np.ndarray,
    from_ego: np.ndarray,
    intrinsic: np.ndarray,
    planes: np.ndarray,
    width: int,
    height: int,
    sun: np.ndarray,
    ambient: float,
    haze_colour: np.ndarray,
    haze_length: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Primitives in the ego frame (see Mesh) to convex polygons in the picture, in the same order.

    width, height: of the picture; what lies beside it, or is too small to be seen, is left out.
    sun: (3,) unit vector towards the sun; ambient: brightness of a face turned away from it, 1 facing it.
    A thing d metres away keeps exp(-d / haze_length) of its colour. Returns corners (M, 2) [px], offsets
    (Q + 1,), colours (Q, 3) rounded.
    """
    corners = np.empty((vertices.shape[0] + 1000, 2))
    offsets = np.zeros(start.shape[0], dtype=np.int64)
    out_colours = np.empty((start.shape[0] - 1, 3))
    eye = np.zeros(3)
    for r in range(3):
        for c in range(3):
            eye[c] -= from_ego[r, c] * from_ego[r, 3]
    fx, fy, skew, cx, cy = intrinsic[0, 0], intrinsic[1, 1], intrinsic[0, 1], intrinsic[0, 2], intrinsic[1, 2]
    used, count = 0, 0
    for p in range(start.shape[0] - 1):
        begin, n = start[p], start[p + 1] - start[p]
        brightness = ambient + 0.55 * (1.0 - ambient)
        is_face = np.isnan(radii[p, 0])
        if is_face:
            ax, ay, az = _difference(vertices, begin + 1, begin)
            bx, by, bz = _difference(vertices, begin + 2, begin + 1)
            nx, ny, nz = ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx
            facing = 0.0
            for c, normal in enumerate((nx, ny, nz)):
                facing += normal * (eye[c] - vertices[begin, c])
            if facing <= 0.0:
                if not two_sided[p]:
                    continue
                nx, ny, nz = -nx, -ny, -nz
            size = max(np.sqrt(nx * nx + ny * ny + nz * nz), 1e-12)
            light = max(nx * sun[0] + ny * sun[1] + nz * sun[2], 0.0) / size
            brightness = ambient + (1.0 - ambient) * (0.8 * light + 0.2 * max(nz / size, 0.0))
        camera = np.empty((n, 3))
        whole, distance = True, 0.0
        for i in range(n):
            for r in range(3):
                total = from_ego[r, 3]
                for c in range(3):
                    total += from_ego[r, c] * vertices[begin + i, c]
                camera[i, r] = total
            distance += np.sqrt(camera[i, 0] ** 2 + camera[i, 1] ** 2 + camera[i, 2] ** 2) / n
            for k in range(planes.shape[0]):
                inside = planes[k, 3]
                for c in range(3):
                    inside += planes[k, c] * camera[i, c]
                whole &= inside >= 0.0
        if corners.shape[0] < used + 3 * n + 2 * _ROUND_CORNERS:  # cutting may add corners
            corners = np.concatenate((corners, np.empty((corners.shape[0] + 4 * n, 2))))
        if is_face:
            if not whole:
                camera = clip_polygon(camera, planes)
            if camera.shape[0] < 3:
                continue
            for i in range(camera.shape[0]):
                x, y = camera[i, 0] / camera[i, 2], camera[i, 1] / camera[i, 2]
                corners[used, 0] = fx * x + skew * y + cx
                corners[used, 1] = fy * y + cy
                used += 1
        else:
            if not whole:
                continue
            ends = np.empty((2, 3))
            for i in range(2):
                x, y = camera[i, 0] / camera[i, 2], camera[i, 1] / camera[i, 2]
                ends[i, 0] = fx * x + skew * y + cx
                ends[i, 1] = fy * y + cy
                ends[i, 2] = fx * radii[p, i] / camera[i, 2]
            along = np.arctan2(ends[1, 1] - ends[0, 1], ends[1, 0] - ends[0, 0])
            per_end = 2 if flat[p] else _ROUND_CORNERS // 2 + 1
            for i in range(2):
                for k in range(per_end):
                    angle = along + np.pi * (0.5 + i + k / (per_end - 1))
                    corners[used, 0] = ends[i, 0] + ends[i, 2] * np.cos(angle)
                    corners[used, 1] = ends[i, 1] + ends[i, 2] * np.sin(angle)
                    used += 1
        if _out_of_sight(corners[offsets[count] : used], width, height):
            used = offsets[count]
            continue
        keep = 1.0 if glowing[p] else np.exp(-distance / haze_length)
        if glowing[p]:
            brightness = 1.0
        for c in range(3):
            lit = min(colours[p, c] * brightness, 255.0)
            out_colours[count, c] = np.round(lit * keep + haze_colour[c] * (1.0 - keep))
        count += 1
        offsets[count] = used
    return corners[:used], offsets[: count + 1], out_colours[:count]


@njit(cache=True)
def _difference(points: np.ndarray, i: int, j: int) -> tuple[float, float, float]:
    """points[i] - points[j]."""
    return points[i, 0] - points[j, 0], points[i, 1] - points[j, 1], points[i, 2] - points[j, 2]


@njit(cache=True)
def _out_of_sight(corners: np.ndarray, width: int, height: int) -> bool:
    """Whether a polygon lies beside the picture or is too small to be seen (a quarter of a pixel)."""
    left, right, top, bottom = np.inf, -np.inf, np.inf, -np.inf
    for i in range(corners.shape[0]):
        left, right = min(left, corners[i, 0]), max(right, corners[i, 0])
        top, bottom = min(top, corners[i, 1]), max(bottom, corners[i, 1])
    beside = right < -1.0 or left > width or bottom < -1.0 or top > height
    return beside or (right - left) * (bottom - top) < 0.25
