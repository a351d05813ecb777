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
    """Index of the one in the log's one-hot `driving_command`."""

    LEFT = 0
    STRAIGHT = 1
    RIGHT = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class Polygons:
    """P polygons with holes, rings in CSR layout; the first ring of a polygon is its shell.

    xy: (V, 2) vertices, rings closed (first vertex repeated). ring_start: (R + 1,) int64 offsets into xy.
    polygon_start: (P + 1,) int64 offsets into rings. bounds: (P, 4) min x, min y, max x, max y.
    """

    xy: np.ndarray
    ring_start: np.ndarray
    polygon_start: np.ndarray
    bounds: np.ndarray


@dataclass(frozen=True)
class Observation:
    """Traffic around the ego on the 10 Hz grid: log replay, a reactive policy, or a forecast.

    tokens: (A,) str, track tokens in order of first sighting.
    kind: (A,) int8, ObjectType.
    size: (A, 2) length and width [m] at the first sighting.
    first_heading: (A,) [rad] heading at the first sighting (the official TTC check uses it at all steps).
    first_speed: (A,) [m/s] speed at the first sighting (decides what counts as a stopped track; 0 for static).
    poses: (S, A, 3) x, y, heading of the box centre; NaN where the object is absent.
    present: (S, A) bool.
    light_ids: (K,) str, on-route lane connectors that are red at some step; light_polygons: their K polygons.
    light_red: (S, K) bool, whether light k is red at step s.
    ignored: (A,) bool, objects that overlap the ego at t0 and therefore never count.
    """

    tokens: np.ndarray
    kind: np.ndarray
    size: np.ndarray
    first_heading: np.ndarray
    first_speed: np.ndarray
    poses: np.ndarray
    present: np.ndarray
    light_ids: np.ndarray
    light_polygons: Polygons
    light_red: np.ndarray
    ignored: np.ndarray


@dataclass(frozen=True)
class DrivableMap:
    """The map polygons within +-100 m of the ego, in the official order (navsim `PDMDrivableMap`).

    layer: (P,) int8 MapLayer. ids: (P,) str map ids. on_route: (P,) bool, lane or lane connector of the
    corrected route.
    """

    polygons: Polygons
    layer: np.ndarray
    ids: np.ndarray
    on_route: np.ndarray


@dataclass(frozen=True)
class Reference:
    """PDM-Closed's plan for one metric version, which normalises progress.

    states: (41, 11) plan sampled at 10 Hz; simulated: (41, 11) after LQR and bicycle
    (columns: x, y, heading, vx, vy, ax, ay, steering angle, steering rate, angular velocity, angular acceleration).
    proposal_scores: (15,) PDM-Closed's own scores of its proposals (path-major: centre, -1 m, +1 m x 5 speeds).
    """

    states: np.ndarray
    simulated: np.ndarray
    proposal_scores: np.ndarray


@dataclass(frozen=True)
class IdmPaths:
    """What reactive traffic needs of K vehicles that follow L paths (V points in all); UTM, unlike the rest.

    track: (K,) int64 index in the detections at t0, and so in observations, in the order of simulation.
    pose: (K, 3) box centre at t0, moved onto the path. progress: (K,) [m] along the path. speed: (K,) [m/s] at t0;
    target_speed: (K,) desired.
    lane: (K,) int64 path that the vehicle follows. path: (V, 4) distance along the path [m], x, y, unwrapped heading.
    path_start: (L + 1,) int64 offsets into path.
    parked: int64 indices, as in track, of the vehicles that stay where they are.
    """

    track: np.ndarray
    pose: np.ndarray
    progress: np.ndarray
    speed: np.ndarray
    target_speed: np.ndarray
    lane: np.ndarray
    path: np.ndarray
    path_start: np.ndarray
    parked: np.ndarray


@dataclass(frozen=True)
class Camera:
    """Front camera at t0. image: path relative to `sensor_blobs/<split>`; empty if the log names none.

    intrinsic: (3, 3). to_ego: (4, 4) camera (x right, y down, z forward) to the ego rear-axle frame [m].
    distortion: (5,) OpenCV order k1, k2, p1, p2, k3.
    """

    image: str
    intrinsic: np.ndarray
    to_ego: np.ndarray
    distortion: np.ndarray


@dataclass(frozen=True)
class Scene:
    """One NAVSIM scene (a 4 + 10 frame window), compiled. See the module docstring for the frame.

    token, log_name, split, map_name: strings. timestamp: t0 [us].
    origin: (3,) UTM x, y [m] and heading [rad] of the ego rear axle at t0.
    velocity, acceleration: (2,) ego rear axle at t0, ego frame (rounded through float32, as navsim does).
    history_poses: (4, 3) rear axle, oldest first, last row zero. history_velocity, history_acceleration: (4, 2)
    in the ego frame of each moment. history_timestamps: (4,) int64 [us].
    command: DrivingCommand. human_poses: (F, 3) recorded rear-axle poses at 0.5 s steps (F = 10, or 0 if synthetic).
    centerline: (C, 3) x, y, heading. route_lane_ids: tuple of str, corrected route, official order.
    current_boxes: what detection sees at t0 - tokens (A0,), kind (A0,), boxes (A0, 5) x, y, heading, length, width
    (local), velocity (A0, 2) local; the input of the `perceived` feedback and of the pictures.
    observations: by metric ("pdms_v1": 51 steps over 5 s, "epdms_v2": 41 steps over 4 s); they begin with the tracks of
    current_tokens.
    idm_paths: of the vehicles that reactive traffic moves.
    references: PDM-Closed by metric.
    """

    token: str
    log_name: str
    split: str
    map_name: str
    timestamp: int
    origin: np.ndarray
    velocity: np.ndarray
    acceleration: np.ndarray
    history_poses: np.ndarray
    history_velocity: np.ndarray
    history_acceleration: np.ndarray
    history_timestamps: np.ndarray
    command: DrivingCommand
    human_poses: np.ndarray
    centerline: np.ndarray
    route_lane_ids: tuple[str, ...]
    drivable_map: DrivableMap
    current_tokens: np.ndarray
    current_kind: np.ndarray
    current_boxes: np.ndarray
    current_velocity: np.ndarray
    camera: Camera
    observations: dict[str, Observation]
    idm_paths: IdmPaths
    references: dict[str, Reference]
