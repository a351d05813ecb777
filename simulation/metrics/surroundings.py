"""The ego's surroundings, prepared for the metrics: tracks, lights, indexed map, centerline, recorded past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mtdrive.simulation.metrics.polygon_index import PolygonIndex, build_polygon_index
from mtdrive.simulation.scene import DrivableMap, ObjectType, Observation

STOPPED_SPEED = 0.05  # [m/s] nuPlan: a track at most this fast when first seen counts as stopped


class Tracks(NamedTuple):
    """A tracked objects over S steps, in the order of the observation."""

    poses: np.ndarray
    """(A, S, 4) x [m], y [m] of the box centre, and cos, sin of its heading."""
    present: np.ndarray
    """(A, S) bool; all False for ignored objects."""
    half_sizes: np.ndarray
    """(A, 2) half length and half width [m]."""
    bounds: np.ndarray
    """(A, 4) min x, min y, max x, max y [m] of the boxes over all steps; inverted, so that nothing meets them, for an
    object that is never present."""
    stopped: np.ndarray
    """(A,) bool, static objects and those that are slow when first seen."""
    is_agent: np.ndarray
    """(A,) bool, vehicles, pedestrians, bicycles and the ego."""


class Lights(NamedTuple):
    """K lane connectors with a traffic light, over S steps."""

    red: np.ndarray
    """(S, K) bool, whether the light is red."""
    xy: np.ndarray
    """(V, 2) vertices of the connectors [m], as in `scene.Polygons`."""
    ring_start: np.ndarray
    """(R + 1,) int64 offsets of the rings into `xy`."""
    polygon_start: np.ndarray
    """(K + 1,) int64 offsets of the connectors into the rings."""


@dataclass(frozen=True)
class Surroundings:
    """The inputs of the metrics beside the ego's motion, in the local frame."""

    tracks: Tracks
    """Other road users and static objects."""
    lights: Lights
    """Lane connectors with a traffic light."""
    polygon_index: PolygonIndex
    """The drivable map."""
    centerline: np.ndarray
    """(C, 2) x, y [m]."""
    past: np.ndarray | None
    """(H, 11) states of the recorded ego before t0, columns as in `dynamics.state`; None where the past does not count.
    """


def build_tracks(observation: Observation) -> Tracks:
    """The tracks of an observation of S steps; ignored objects are never present."""
    present = np.ascontiguousarray((observation.present & ~observation.ignored).T)
    centre, heading = observation.poses[..., :2], observation.poses[..., 2]
    poses = np.concatenate([centre, np.cos(heading)[..., None], np.sin(heading)[..., None]], axis=-1)
    half_sizes = observation.size / 2.0
    reach = np.hypot(half_sizes[:, 0], half_sizes[:, 1])[:, None]
    seen = present.T[..., None]
    is_agent = (observation.kind <= ObjectType.BICYCLE) | (observation.kind == ObjectType.EGO)
    low = np.where(seen, centre, np.inf).min(axis=0, initial=np.inf) - reach
    high = np.where(seen, centre, -np.inf).max(axis=0, initial=-np.inf) + reach
    return Tracks(
        poses=np.ascontiguousarray(poses.transpose(1, 0, 2)),
        present=present,
        half_sizes=half_sizes,
        bounds=np.concatenate([low, high], axis=1),
        stopped=~is_agent | (observation.first_speed <= STOPPED_SPEED),
        is_agent=is_agent,
    )


def _build_lights(observation: Observation) -> Lights:
    polygons = observation.light_polygons
    arrays = (observation.light_red, polygons.xy, polygons.ring_start, polygons.polygon_start)
    return Lights(*map(np.array, arrays))


def prepare_surroundings(
    observation: Observation, drivable_map: DrivableMap, centerline: np.ndarray, past: np.ndarray | None
) -> Surroundings:
    """Prepare the surroundings for the metrics.

    Args:
        observation: the traffic over S steps.
        drivable_map: the map, which is indexed once.
        centerline: (C, >= 2) x, y [m] first.
        past: (H, 11) states of the recorded ego, or None.
    """
    return Surroundings(
        tracks=build_tracks(observation),
        lights=_build_lights(observation),
        polygon_index=build_polygon_index(drivable_map),
        centerline=np.ascontiguousarray(centerline[:, :2], dtype=np.float64),
        past=past,
    )
