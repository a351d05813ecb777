"""SE(2) frames: poses are (..., 3) arrays of x [m], y [m], heading [rad]; points are (..., 2)."""

from __future__ import annotations

import numpy as np


def normalize_angle(angle: np.ndarray) -> np.ndarray:
    """Wrap angles [rad] to [-pi, pi]."""
    return np.arctan2(np.sin(angle), np.cos(angle))


def quaternion_yaw(quaternion: np.ndarray) -> np.ndarray:
    """Heading [rad] of (..., 4) quaternions w, x, y, z, as navsim reads it (pyquaternion `yaw_pitch_roll[0]`).

    The sign of the xy term is pyquaternion's: under pitch and roll this is not the usual ZYX yaw.
    """
    quaternion = np.asarray(quaternion, dtype=np.float64)
    w, x, y, z = np.moveaxis(quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0)
    return np.arctan2(2 * (w * z - x * y), 1 - 2 * (y**2 + z**2))


def rotate(points: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """Rotate (..., 2) points by heading [rad] (broadcast over the leading axes)."""
    cos, sin = np.cos(heading), np.sin(heading)
    x, y = points[..., 0], points[..., 1]
    return np.stack([x * cos - y * sin, x * sin + y * cos], axis=-1)


def points_to_local(points: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Points (..., 2) [m] from the parent frame to the frame whose pose is origin (3,)."""
    return rotate(points - origin[:2], -origin[2])


def points_to_global(points: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Points (..., 2) [m] from the frame whose pose is origin (..., 3) to the parent frame."""
    return rotate(points, origin[..., 2]) + origin[..., :2]


def poses_to_local(poses: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Poses (..., 3) from the parent frame to the frame whose pose is origin (3,); headings are wrapped."""
    heading = normalize_angle(poses[..., 2] - origin[2])
    return np.concatenate([points_to_local(poses[..., :2], origin), heading[..., None]], axis=-1)


def poses_to_global(poses: np.ndarray, origin: np.ndarray) -> np.ndarray:
    """Poses (..., 3) from the frame whose pose is origin (..., 3) to the parent frame; headings are wrapped."""
    heading = normalize_angle(poses[..., 2] + origin[..., 2])
    return np.concatenate([points_to_global(poses[..., :2], origin), heading[..., None]], axis=-1)


def translate_forward(poses: np.ndarray, distance: float) -> np.ndarray:
    """Move poses (..., 3) along their own headings by a distance [m]."""
    step = distance * np.stack([np.cos(poses[..., 2]), np.sin(poses[..., 2])], axis=-1)
    return np.concatenate([poses[..., :2] + step, poses[..., 2:]], axis=-1)


def box_corners(poses: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Corners (..., 4, 2) of boxes centred at poses (..., 3) with size (..., 2) length and width [m].

    Order: front-left, rear-left, rear-right, front-right (nuplan-devkit `OrientedBox.all_corners`).
    """
    half = np.asarray(size)[..., None, :] / 2 * np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]])
    return rotate(half, poses[..., 2, None]) + poses[..., None, :2]
