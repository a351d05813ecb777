"""The two ways to change a plan (T, 3): travel farther or less far along its path, or shift it to a side."""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.geometry.frames import poses_to_global, poses_to_local, translate_forward

SHORTEST = 1e-3  # [m] poses closer than this are one point of the path


def distances_along(poses: np.ndarray) -> np.ndarray:
    """(..., T) distance [m] along plans (..., T, 3) from the origin to each pose."""
    start = np.zeros((*poses.shape[:-2], 1, 2))
    steps = np.diff(np.concatenate([start, poses[..., :2]], axis=-2), axis=-2)
    return np.cumsum(np.hypot(steps[..., 0], steps[..., 1]), axis=-1)


def travel(poses: np.ndarray, amounts: np.ndarray, interval: float, speed: float, centerline: np.ndarray) -> np.ndarray:
    """Plans on the path of a plan that end farther along it, or less far.

    They get there at one constant acceleration; a car that has come to a stop waits. Beyond the end of the plan the
    path bends as the centerline beside it does.

    Args:
        poses: (T, 3) the plan.
        amounts: (K,) how much farther along the path to end [m], signed.
        interval: [s] between poses.
        speed: at t0 [m/s].
        centerline: (C, 3) x [m], y [m], heading [rad].

    Returns:
        (K, T, 3) plans.
    """
    ends = np.maximum(distances_along(poses)[-1] + amounts, 0.0)
    wanted = constant_acceleration(ends, speed, interval * np.arange(1, len(poses) + 1))
    onward = centerline[np.argmin(np.hypot(*(centerline[:, :2] - poses[-1, :2]).T)) :]
    onward = poses_to_global(poses_to_local(onward, onward[0]), poses[-1])
    path = np.vstack([np.zeros(3), poses, onward, translate_forward(onward[-1], ends.max())])
    path[:, 2] = np.unwrap(path[:, 2])
    at = np.concatenate([[0.0], distances_along(path[1:])])
    keep = np.concatenate([[True], np.diff(at) > SHORTEST])
    return np.stack([np.interp(wanted, at[keep], column) for column in path[keep].T], axis=-1)


def constant_acceleration(distances: np.ndarray, speed: float, time: np.ndarray) -> np.ndarray:
    """(K, T) distances [m] covered at each time, at one constant acceleration each.

    Args:
        distances: (K,) to be covered at the last time [m]. Less than half the distance of coasting ends in a stop
            before that.
        speed: at time 0 [m/s].
        time: (T,) [s].
    """
    horizon = time[-1]
    speed = max(speed, 0.0)
    moving = np.maximum(distances, SHORTEST)
    stops = distances < speed * horizon / 2.0
    acceleration = np.where(stops, -(speed**2) / (2.0 * moving), 2.0 * (distances - speed * horizon) / horizon**2)
    end = np.where(stops, 2.0 * moving / max(speed, SHORTEST), horizon)
    driving = np.minimum(time, end[:, None])
    return np.minimum(speed * driving + acceleration[:, None] * driving**2 / 2.0, distances[:, None])


def shift(poses: np.ndarray, amounts: np.ndarray, time: float, interval: float) -> np.ndarray:
    """Plans beside a plan: shifted to its left from a time on, and moving there smoothly until then.

    Args:
        poses: (T, 3) the plan.
        amounts: (K,) how far to the left [m], signed.
        time: when the shift is complete [s].
        interval: [s] between poses.

    Returns:
        (K, T, 3) plans.
    """
    progress = np.clip(interval * np.arange(len(poses) + 1) / time, 0.0, 1.0)
    offset = amounts[:, None] * progress**2 * (3.0 - 2.0 * progress)
    forward = np.gradient(np.concatenate([[0.0], distances_along(poses)]))
    turn = np.arctan2(np.gradient(offset, axis=1), np.maximum(forward, SHORTEST))[:, 1:]
    heading = poses[:, 2]
    changed = np.repeat(poses[None], len(amounts), axis=0)
    changed[..., 0] -= offset[:, 1:] * np.sin(heading)
    changed[..., 1] += offset[:, 1:] * np.cos(heading)
    changed[..., 2] += np.where(forward[1:] > SHORTEST, turn, 0.0)
    return changed
