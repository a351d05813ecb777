"""Paths that a plan follows, parametrised by the distance along them (navsim `PDMPath`)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import shapely
import shapely.ops

from mtdrive.simulation.runtime.kernels import kernel


@dataclass(frozen=True)
class Path:
    """A path through n points."""

    states: np.ndarray
    """(n, 3) x [m], y [m], unwrapped heading [rad]."""
    progress: np.ndarray
    """(n,) distance along the points [m]."""

    @classmethod
    def through(cls, states: np.ndarray) -> Path:
        """The path through states (n, 3); their headings may be wrapped."""
        steps = np.linalg.norm(np.diff(states[:, :2], axis=0), axis=1)
        unwrapped = np.column_stack([states[:, :2], np.unwrap(states[:, 2])])
        return cls(unwrapped, np.cumsum(np.append(0.0, steps)))

    @cached_property
    def line(self) -> shapely.LineString:
        """The points as a line."""
        return shapely.linestrings(self.states[:, :2])

    def offset(self, distance: float) -> Path:
        """The parallel path at a distance [m], positive to the left."""
        normal = self.states[:, 2] + np.pi / 2
        shift = distance * np.column_stack([np.cos(normal), np.sin(normal)])
        return Path.through(np.column_stack([self.states[:, :2] + shift, self.states[:, 2]]))

    def section(self, start: float, end: float) -> shapely.LineString:
        """The points between two distances [m]; it is cut exactly only if fewer than two points lie between."""
        start, end = np.clip([start, end], 0.0, self.progress[-1])
        inside = self.states[(start <= self.progress) & (self.progress <= end), :2]
        return shapely.LineString(inside) if len(inside) > 1 else shapely.ops.substring(self.line, start, end)


@kernel
def interpolate_path(states: np.ndarray, progress: np.ndarray, distance: float) -> np.ndarray:
    """State (3,) at a distance [m] along a path, which is clipped to the path; the heading is wrapped."""
    distance = min(max(distance, 1e-5), progress[-1])
    high = min(max(int(np.searchsorted(progress, distance)), 1), len(progress) - 1)
    low = high - 1
    slope = (states[high] - states[low]) / (progress[high] - progress[low])
    state = slope * (distance - progress[low]) + states[low]
    state[2] = np.arctan2(np.sin(state[2]), np.cos(state[2]))
    return state
