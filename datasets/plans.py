"""Plans as a path and a speed profile: the family from which flawed and corrected plans are drawn.

Everything is in the ego rear-axle frame at t0, in metres, radians and seconds; a plan is (8, 3) at 0.5 s.
"""

from __future__ import annotations

import numpy as np

from mtdrive.simulation.scene import Scene

TIMES = np.arange(1, 9) * 0.5  # [s] of the eight waypoints
FINE = 0.05  # [s] integration step of speed profiles
EXTENSION = 80.0  # [m] that a path goes on straight behind its last point
REJOIN = 12.0  # [m] within which a path that starts off the centre line joins it


def profile_distances(speed: float, first: np.ndarray, second: np.ndarray, switch: float = 2.0) -> np.ndarray:
    """Distance travelled at the waypoint times, (N, 8) [m], under an acceleration that changes once.

    speed: [m/s] at t0. first, second: (N,) accelerations [m/s^2] before and after `switch` [s]. The car never reverses.
    """
    times = np.arange(0.0, TIMES[-1], FINE)
    acceleration = np.where(times[None] < switch, first[:, None], second[:, None])
    speeds = np.empty((len(first), len(times) + 1))
    speeds[:, 0] = max(speed, 0.0)
    for step in range(len(times)):
        speeds[:, step + 1] = np.maximum(speeds[:, step] + acceleration[:, step] * FINE, 0.0)
    distances = np.cumsum((speeds[:, 1:] + speeds[:, :-1]) * 0.5 * FINE, axis=1)
    return distances[:, np.round(TIMES / FINE).astype(int) - 1]


def plan_along(path: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """Poses (N, 8, 3) at the given distances (N, 8) [m] along a path (K, 3); straight on beyond its end."""
    heading = path[-1, 2]
    end = path[-1] + np.array([EXTENSION * np.cos(heading), EXTENSION * np.sin(heading), 0.0])
    path = np.vstack([path, end])
    length = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path[:, :2], axis=0).T))])
    heading = np.unwrap(path[:, 2])
    return np.stack([np.interp(distances, length, column) for column in (path[:, 0], path[:, 1], heading)], axis=-1)


def expert_path(scene: Scene) -> np.ndarray:
    """The recorded human's path (9, 3) from the origin; the centre line's where the human hardly moves."""
    path = np.vstack([np.zeros(3), scene.human_poses[: len(TIMES)]])
    moved = np.hypot(*np.diff(path[:, :2], axis=0).T) > 0.05
    if path[-1, 0] < 2.0:
        return centerline_path(scene)
    return path[np.concatenate([[True], moved])]


def centerline_path(scene: Scene) -> np.ndarray:
    """The route's centre line from the ego on, (K, 3), joined smoothly from where the ego stands."""
    line = scene.centerline
    nearest = int(np.argmin(np.hypot(line[:, 0], line[:, 1])))
    ahead = line[nearest:]
    if len(ahead) < 3:
        return np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(ahead[:, :2], axis=0).T))])
    fade = np.clip(1.0 - along / REJOIN, 0.0, 1.0) ** 2 * (1.0 + 2.0 * np.clip(along / REJOIN, 0.0, 1.0))
    xy = ahead[:, :2] - fade[:, None] * ahead[0, :2]
    return with_headings(xy[along < 120.0], start=0.0)


def with_headings(xy: np.ndarray, start: float) -> np.ndarray:
    """Append the direction of travel to points (K, 2); the first point gets `start` [rad]."""
    steps = np.diff(xy, axis=0)
    heading = np.unwrap(np.arctan2(steps[:, 1], steps[:, 0]))
    return np.column_stack([xy, np.concatenate([[start], heading])])


def shifted(path: np.ndarray, offset: float, start: float = 2.0, length: float = 15.0) -> np.ndarray:
    """A path moved sideways by `offset` [m] (positive: left), eased in over `length` [m] after `start` [m]."""
    along = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(path[:, :2], axis=0).T))])
    fine = np.arange(0.0, max(along[-1], start + length + 5.0), 1.0)
    base = plan_along(path, fine[None])[0]
    ease = np.clip((fine - start) / length, 0.0, 1.0)
    ease = offset * ease**2 * (3.0 - 2.0 * ease)
    normal = np.column_stack([-np.sin(base[:, 2]), np.cos(base[:, 2])])
    return with_headings(base[:, :2] + ease[:, None] * normal, start=0.0)


def swept(
    scene: Scene, path: np.ndarray, first: np.ndarray, second: np.ndarray, offsets: tuple[float, ...], **shift: float
) -> np.ndarray:
    """Plans (len(offsets) * len(first) * len(second), 8, 3): every speed profile along every shifted path.

    first, second: accelerations [m/s^2], as in `profile_distances`. offsets [m], shift: as in `shifted`.
    """
    paces = (grid.ravel() for grid in np.meshgrid(first, second))
    distances = profile_distances(float(scene.velocity[0]), *paces)
    return np.concatenate(
        [plan_along(shifted(path, offset, **shift) if offset else path, distances) for offset in offsets]
    )


def between(flawed: np.ndarray, corrected: np.ndarray, share: float) -> np.ndarray:
    """A half-corrected plan (8, 3): `share` of the way from the flawed one to the corrected one."""
    return flawed + share * (corrected - flawed)
