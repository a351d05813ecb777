"""Pinhole camera: from the ego rear-axle frame to pixels.

Camera frame: x right, y down, z forward [m]. Pixel (0, 0) is the centre of the top left pixel, as in
OpenCV. The ground is taken to be the plane z = 0 of the ego frame, as NAVSIM's flat world has it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise

import cv2
import numpy as np
from numba import njit

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene import Camera

NEAR = 0.2  # [m] depth below which points are not projected
NAVSIM_SIZE, NAVSIM_CENTRE = (1920, 1080), (960.0, 560.0)  # [px] NAVSIM's images, and their principal point
OFF_CENTRE = 0.1  # a camera's principal point may lie this share of half the image's width off its middle
GUARD = 4.0  # polygons are cut this many half image widths off the axis, where OpenCV's integers still hold


@njit(cache=True)
def clip_polygon(points: np.ndarray, planes: np.ndarray) -> np.ndarray:
    """Cut a polygon (N, 3) by half spaces, rows (a, b, c, d) of planes (P, 4) with a x + b y + c z + d >= 0.

    Sutherland and Hodgman's algorithm; returns (M, 3), M = 0 if nothing is left.
    """
    current = points
    for p in range(planes.shape[0]):
        n = current.shape[0]
        if n == 0:
            break
        out = np.empty((2 * n, 3))
        m = 0
        previous = current[n - 1]
        before = planes[p, :3] @ previous + planes[p, 3]
        for i in range(n):
            now = planes[p, :3] @ current[i] + planes[p, 3]
            if (now >= 0.0) != (before >= 0.0):
                out[m] = previous + (current[i] - previous) * (before / (before - now))
                m += 1
            if now >= 0.0:
                out[m] = current[i]
                m += 1
            previous, before = current[i], now
        current = out[:m]
    return current


@dataclass(frozen=True, eq=False)
class PinholeCamera:
    """A calibrated camera on the ego vehicle, for one image size.

    Raises:
        MTDriveError: the calibration is of a wrong shape, not finite, no rotation, or without a positive focal length.
    """

    intrinsic: np.ndarray
    """(3, 3) camera matrix [px]."""
    to_ego: np.ndarray
    """(4, 4) transform from the camera frame to the ego frame [m]."""
    distortion: np.ndarray
    """(5,) lens distortion k1, k2, p1, p2, k3 (OpenCV's order)."""
    width: int
    """Of the image [px]."""
    height: int
    """Of the image [px]."""
    from_ego: np.ndarray = field(init=False, repr=False)
    """(4, 4) transform from the ego frame to the camera frame, the inverse of `to_ego`."""
    planes: np.ndarray = field(init=False, repr=False)
    """(5, 4) half spaces of the camera frame, as `clip_polygon` takes them, that hold what is drawn."""

    def __post_init__(self) -> None:
        for name, shape in (("intrinsic", (3, 3)), ("to_ego", (4, 4)), ("distortion", (5,))):
            array = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            if array.shape != shape or not np.isfinite(array).all():
                raise MTDriveError(f"Camera calibration: {name} must be {shape} finite numbers, not {array.tolist()}.")
            object.__setattr__(self, name, array)
        rotation, position = self.to_ego[:3, :3], self.to_ego[:3, 3]
        if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3):
            raise MTDriveError(f"Camera calibration: to_ego holds no rotation matrix: {rotation.tolist()}.")
        if min(self.intrinsic[0, 0], self.intrinsic[1, 1]) <= 0:
            raise MTDriveError(f"Camera calibration: focal lengths must be positive in {self.intrinsic.tolist()}.")
        inverse = np.eye(4)
        inverse[:3, :3] = rotation.T
        inverse[:3, 3] = -rotation.T @ position
        object.__setattr__(self, "from_ego", inverse)
        across = GUARD * self.width / self.intrinsic[0, 0]
        down = GUARD * self.height / self.intrinsic[1, 1]
        planes = [[0, 0, 1, -NEAR], [1, 0, across, 0], [-1, 0, across, 0], [0, 1, down, 0], [0, -1, down, 0]]
        object.__setattr__(self, "planes", np.array(planes, dtype=np.float64))

    @classmethod
    def from_scene(cls, camera: Camera, width: int, height: int) -> PinholeCamera:
        """The camera of a scene for its stored image of width x height, of whatever size its calibration is.

        `navsim_format.logs.front_camera` reads the calibration of a log's frame.

        Raises:
            MTDriveError: as the class, or the principal point does not lie to the right of the image's left edge.
        """
        intrinsic = resampled(camera.intrinsic, *image_scale(camera.intrinsic, width, height))
        return cls(intrinsic, camera.to_ego, camera.distortion, width, height)

    def resized(self, width: int, height: int) -> PinholeCamera:
        """The same camera for the whole image resampled to width x height."""
        intrinsic = resampled(self.intrinsic, width / self.width, height / self.height)
        return replace(self, intrinsic=intrinsic, width=width, height=height)

    @property
    def position(self) -> np.ndarray:
        """(3,) position of the camera in the ego frame [m]."""
        return self.to_ego[:3, 3]

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """Ego frame to camera frame; (..., 3) to (..., 3)."""
        return np.asarray(points, dtype=np.float64) @ self.from_ego[:3, :3].T + self.from_ego[:3, 3]

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ego points (N, 3) to pixels (N, 2) and depth (N,) [m]; pixels are NaN where depth < NEAR."""
        points = self.to_camera(points)
        depth = points[:, 2].copy()
        points[depth < NEAR] = np.nan
        return self.pixels(points), depth

    def pixels(self, points: np.ndarray) -> np.ndarray:
        """Camera points (N, 3) in front of the camera to pixels (N, 2)."""
        flat = points[:, :2] / points[:, 2:3]
        if self.distortion.any():
            flat = distort(flat, self.distortion)
        return flat @ self.intrinsic[:2, :2].T + self.intrinsic[:2, 2]

    def project_polygon(self, points: np.ndarray) -> np.ndarray:
        """The visible part of an ego polygon (N, 3), as pixels (M, 2); M = 0 if there is none."""
        return self.pixels(clip_polygon(self.to_camera(points), self.planes))

    def project_polyline(self, points: np.ndarray) -> list[np.ndarray]:
        """The parts of an ego polyline (N, 3) before the near plane, each as pixels (M, 2), M >= 2."""
        points = self.to_camera(points)
        pieces: list[list[np.ndarray]] = [[]]
        for start, end in pairwise(points):
            inside = start[2] >= NEAR, end[2] >= NEAR
            if not any(inside):
                continue
            if all(inside):
                pieces[-1] = [*(pieces[-1] or [start]), end]
                continue
            crossing = start + (end - start) * ((NEAR - start[2]) / (end[2] - start[2]))
            if inside[0]:
                pieces[-1] = [*(pieces[-1] or [start]), crossing]
                pieces.append([])
            else:
                pieces[-1] += [crossing, end]
        return [self.pixels(np.array(piece)) for piece in pieces if len(piece) >= 2]

    def ground_points(self, pixels: np.ndarray) -> np.ndarray:
        """Where the rays of pixels (N, 2) meet the ground: ego x, y (N, 2); NaN at and above the horizon."""
        flat = (np.asarray(pixels, dtype=np.float64) - self.intrinsic[:2, 2]) @ np.linalg.inv(self.intrinsic[:2, :2]).T
        if self.distortion.any():
            accuracy = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 100, 1e-12)
            flat = cv2.undistortPoints(flat[:, None], np.eye(3), self.distortion, criteria=accuracy)[:, 0]
        rays = np.column_stack([flat, np.ones(len(flat))]) @ self.to_ego[:3, :3].T
        with np.errstate(divide="ignore"):
            distance = np.where(rays[:, 2] < 0, -self.position[2] / rays[:, 2], np.nan)
        return self.position[:2] + rays[:, :2] * distance[:, None]


def image_scale(intrinsic: np.ndarray, width: int, height: int) -> tuple[float, float]:
    """By how much an image of width x height is larger than the one that a camera matrix (3, 3) was made for: (x, y).

    The matrix does not say for which size it was made; the principal point does, which lies near the middle. NAVSIM's
    is known, so that a copy of other proportions is recognised too. Any other copy is taken to keep its proportions,
    since the vertical position of the principal point says little where the picture was cropped.

    Raises:
        MTDriveError: the principal point does not lie to the right of the image's left edge.
    """
    centre = intrinsic[:2, 2]
    if np.allclose(centre, NAVSIM_CENTRE, rtol=0.01, atol=0.0):
        return width / NAVSIM_SIZE[0], height / NAVSIM_SIZE[1]
    if not centre[0] > 0:
        raise MTDriveError(f"Camera calibration: the principal point {centre.tolist()} lies outside the image.")
    scale = width / (2.0 * float(centre[0]))
    return (1.0, 1.0) if abs(1.0 / scale - 1.0) <= OFF_CENTRE else (scale, scale)


def resampled(intrinsic: np.ndarray, sx: float, sy: float) -> np.ndarray:
    """The camera matrix (3, 3) for the image resampled to sx times its width and sy times its height."""
    # Resampling keeps the image's outer edge in place, which lies half a pixel off the corner pixel's centre.
    return np.array([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]]) @ intrinsic


def distort(flat: np.ndarray, distortion: np.ndarray) -> np.ndarray:
    """Brown and Conrady's lens distortion of normalised image points (N, 2).

    The radial polynomial turns back beyond some radius, where it no longer describes a lens and would fold
    points far outside the picture into it: beyond that radius the distorted radius goes on growing linearly.
    """
    k1, k2, p1, p2, k3 = distortion
    slope = np.polynomial.Polynomial([1, 0, 3 * k1, 0, 5 * k2, 0, 7 * k3]).roots()
    turning = slope[(np.abs(slope.imag) < 1e-9) & (slope.real > 0)].real
    limit = 0.98 * turning.min() if len(turning) else np.inf
    radius = np.linalg.norm(flat, axis=1, keepdims=True)
    r = np.minimum(radius, limit)
    scale = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
    inner = flat * (r / np.maximum(radius, 1e-12))
    x, y = inner[:, :1], inner[:, 1:]
    tangential = np.hstack([2 * p1 * x * y + p2 * (r**2 + 2 * x**2), p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y])
    return inner * scale + tangential + (flat - inner)
