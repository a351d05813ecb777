"""What the ego meets, prepared for the metrics: tracks, lights, indexed map, centerline, recorded past."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from mtdrive.simulation.metrics.polygon_index import PolygonIndex, build_polygon_index
from mtdrive.simulation.scene import DrivableMap, ObjectType, Observation

STOPPED_SPEED = 0.05  # [m/s] nuPlan: a track at most this fast when first seen counts as stopped


class Tracks(NamedTuple):
    """A tracked objects over S steps, in the order of the observation.

    poses: (A, S, 4) centre x, y and direction cos, sin. present: (A, S) bool; never, for ignored objects.
    half_sizes: (A, 2) half length and width [m]. bounds: (A, 4) min x, min y, max x, max y over all steps, boxes
    included; inverted (never met) for an object that is never present.
    stopped: (A,) bool, static or slow when first seen. is_agent: (A,) bool.
    """

    poses: np.ndarray
    present: np.ndarray
    half_sizes: np.ndarray
    bounds: np.ndarray
    stopped: np.ndarray
    is_agent: np.ndarray


class Lights(NamedTuple):
    """K connectors with a traffic light. red: (S, K) bool. xy, ring_start, polygon_start: as in scene.Polygons."""

    red: np.ndarray
    xy: np.ndarray
    ring_start: np.ndarray
    polygon_start: np.ndarray


@dataclass(frozen=True)
class Surroundings:
    """Inputs of the metrics beside the ego's motion.

    centerline: (C, 2) [m]. past: (H, 11) states of the recorded ego before t0, or None where it does not count.
    """

    tracks: Tracks
    lights: Lights
    polygon_index: PolygonIndex
    centerline: np.ndarray
    past: np.ndarray | None


def build_tracks(observation: Observation) -> Tracks:
    """Tracks of an observation (S steps); what is ignored is never present."""
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
    """Prepare an observation (S steps), a map, a centerline (C, >= 2) and a past (H, 11) for the metrics."""
    return Surroundings(
        tracks=build_tracks(observation),
        lights=_build_lights(observation),
        polygon_index=build_polygon_index(drivable_map),
        centerline=np.ascontiguousarray(centerline[:, :2], dtype=np.float64),
        past=past,
    )
