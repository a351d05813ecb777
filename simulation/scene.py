"""A compiled scene: everything that simulation, scoring and feedback need, as flat arrays.

Frame: the *local* frame, whose origin is the ego rear axle at t0 and whose x axis is the ego heading at
t0. `Scene.origin` holds the pose of that frame in the map's UTM metres. All arrays are float64 unless
said otherwise and may be read-only views of a memory-mapped cache file.

Letters in shapes: S time steps at 10 Hz (41 for 4 s, 51 for 5 s), A tracked objects, V polygon vertices,
R rings, P polygons, C centerline points, F future frames at 2 Hz, K lights.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

STEP = 0.1  # [s] simulation and scoring interval
HORIZON = 4.0  # [s] scored horizon
NUM_STEPS = 41  # t0 and 40 steps


class ObjectType(IntEnum):
    """Classes of tracked objects, by the names that NAVSIM logs use (`anns["gt_names"]`)."""

    VEHICLE = 0
    PEDESTRIAN = 1
    BICYCLE = 2
    TRAFFIC_CONE = 3
    BARRIER = 4
    CZONE_SIGN = 5
    GENERIC_OBJECT = 6
    EGO = 7

    @property
    def is_agent(self) -> bool:
        """Vehicles, pedestrians and bicycles are agents; the rest is static."""
        return self <= ObjectType.BICYCLE


class MapLayer(IntEnum):
    """Layers of the drivable-area map that the official scorer queries."""

    LANE = 0
    LANE_CONNECTOR = 1
    ROADBLOCK = 2
    ROADBLOCK_CONNECTOR = 3
    INTERSECTION = 4
    CARPARK_AREA = 5
    DRIVABLE_AREA = 6


class DrivingCommand(IntEnum):
    """Index of the one in the log's one-hot `driving_command`; UNKNOWN where that is all 0."""

    LEFT = 0
    STRAIGHT = 1
    RIGHT = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class Polygons:
    """P polygons with holes, rings in CSR layout; the first ring of a polygon is its shell.

    A multipolygon has the rings of its parts one after the other, the largest shell first. In each case a point lies
    inside if it lies inside an odd number of rings.
    """

    xy: np.ndarray
    """(V, 2) vertices [m]; rings are closed, so the first vertex of a ring is repeated."""
    ring_start: np.ndarray
    """(R + 1,) int64 offsets of the rings into `xy`."""
    polygon_start: np.ndarray
    """(P + 1,) int64 offsets of the polygons into the rings."""
    bounds: np.ndarray
    """(P, 4) min x, min y, max x, max y [m]."""


@dataclass(frozen=True)
class Observation:
    """Traffic around the ego on the 10 Hz grid: log replay, a reactive policy, or a forecast."""

    tokens: np.ndarray
    """(A,) str, track tokens in order of first sighting."""
    kind: np.ndarray
    """(A,) int8, `ObjectType`."""
    size: np.ndarray
    """(A, 2) length and width [m] at the first sighting."""
    first_heading: np.ndarray
    """(A,) heading [rad] at the first sighting, which the official TTC check uses at all steps."""
    first_speed: np.ndarray
    """(A,) speed [m/s] at the first sighting, which decides what counts as a stopped track; 0 for static objects."""
    poses: np.ndarray
    """(S, A, 3) x [m], y [m], heading [rad] of the box centre; NaN where the object is absent."""
    present: np.ndarray
    """(S, A) bool, whether the object is there."""
    light_ids: np.ndarray
    """(K,) str, ids of the on-route lane connectors whose light is red at some step."""
    light_polygons: Polygons
    """The K polygons of these connectors."""
    light_red: np.ndarray
    """(S, K) bool, whether the light is red."""
    ignored: np.ndarray
    """(A,) bool, objects that overlap the ego at t0 and therefore never count."""


@dataclass(frozen=True)
class DrivableMap:
    """The map polygons within +-100 m of the ego, in the official order (navsim `PDMDrivableMap`)."""

    polygons: Polygons
    """P polygons in the local frame."""
    layer: np.ndarray
    """(P,) int8, `MapLayer`."""
    ids: np.ndarray
    """(P,) str, ids in the map."""
    on_route: np.ndarray
    """(P,) bool, lanes and lane connectors of the corrected route."""


@dataclass(frozen=True)
class Reference:
    """PDM-Closed's plan for one metric version, which normalises progress."""

    states: np.ndarray
    """(41, 11) the plan sampled at 10 Hz, columns as in `dynamics.state`; all but the pose are 0."""
    simulated: np.ndarray
    """(41, 11) the plan as driven by the LQR tracker and the bicycle model, columns as in `dynamics.state`."""
    proposal_scores: np.ndarray
    """(15,) PDM-Closed's own scores of its proposals, path-major: offsets 0, -1, +1 m, five speeds each."""


@dataclass(frozen=True)
class IdmPaths:
    """K reactive vehicles and the L paths that they follow (V points in all); in UTM, unlike the rest of a scene."""

    track: np.ndarray
    """(K,) int64 index in the detections at t0, and so in observations, in the order of simulation."""
    pose: np.ndarray
    """(K, 3) UTM x [m], y [m], heading [rad] of the box centre at t0, moved onto the path."""
    progress: np.ndarray
    """(K,) distance along the path at t0 [m]."""
    speed: np.ndarray
    """(K,) speed at t0 [m/s]."""
    target_speed: np.ndarray
    """(K,) desired speed [m/s]."""
    lane: np.ndarray
    """(K,) int64 index of the path that the vehicle follows."""
    path: np.ndarray
    """(V, 4) points of all paths: distance along the path [m], UTM x [m], y [m], unwrapped heading [rad]."""
    path_start: np.ndarray
    """(L + 1,) int64 offsets of the paths into `path`."""
    parked: np.ndarray
    """int64 indices, as in `track`, of the vehicles that stay where they are."""


@dataclass(frozen=True)
class Camera:
    """The front camera at t0."""

    image: str
    """Path relative to `sensor_blobs/<split>`; empty if the log names no image."""
    intrinsic: np.ndarray
    """(3, 3) camera matrix [px]."""
    to_ego: np.ndarray
    """(4, 4) transform from the camera frame (x right, y down, z forward) to the ego rear-axle frame [m]."""
    distortion: np.ndarray
    """(5,) lens distortion k1, k2, p1, p2, k3 (OpenCV's order)."""


@dataclass(frozen=True)
class Scene:
    """One NAVSIM scene (a window of 4 + F frames), compiled. See the module docstring for the frame.

    The `current_*` fields hold what is detected at t0, A0 objects: the input of `perceived` feedback and of pictures.
    """

    token: str
    """NAVSIM's token of the frame at t0."""
    log_name: str
    """Log that the frame is from."""
    split: str
    """Data split that the log is in."""
    map_name: str
    """Map location, such as "us-ma-boston"."""
    timestamp: int
    """t0 [us since 1970]."""
    origin: np.ndarray
    """(3,) UTM x [m], y [m], heading [rad] of the ego rear axle at t0."""
    velocity: np.ndarray
    """(2,) of the ego rear axle at t0 in the ego frame [m/s], rounded through float32 as navsim does."""
    acceleration: np.ndarray
    """(2,) of the ego rear axle at t0 in the ego frame [m/s^2], rounded likewise."""
    history_poses: np.ndarray
    """(4, 3) x [m], y [m], heading [rad] of the rear axle, oldest first; the last row, t0, is zero."""
    history_velocity: np.ndarray
    """(4, 2) [m/s] in the ego frame of each moment."""
    history_acceleration: np.ndarray
    """(4, 2) [m/s^2] in the ego frame of each moment."""
    history_timestamps: np.ndarray
    """(4,) int64 [us since 1970]."""
    command: DrivingCommand
    """What the navigation says."""
    human_poses: np.ndarray
    """(F, 3) recorded rear-axle x [m], y [m], heading [rad] at 0.5 s steps. F = 10, or 8 or 9 where
    the window of the split is that short; 0 for a synthetic scene."""
    centerline: np.ndarray
    """(C, 3) x [m], y [m], heading [rad] along the route's lanes."""
    route_lane_ids: tuple[str, ...]
    """Map ids of the lanes and lane connectors of the corrected route, in the official order."""
    drivable_map: DrivableMap
    """The map around the ego."""
    current_tokens: np.ndarray
    """(A0,) str, track tokens."""
    current_kind: np.ndarray
    """(A0,) int8, `ObjectType`."""
    current_boxes: np.ndarray
    """(A0, 5) x [m], y [m], heading [rad], length [m], width [m]."""
    current_velocity: np.ndarray
    """(A0, 2) [m/s] in the local frame."""
    camera: Camera
    """The front camera."""
    observations: dict[str, Observation]
    """The recorded traffic by score version (`metrics.registry.RecordedTraffic` says over how many steps). Its tracks
    begin with those of `current_tokens`."""
    idm_paths: IdmPaths
    """The vehicles that reactive traffic moves."""
    references: dict[str, Reference]
    """PDM-Closed's plan by score version."""
