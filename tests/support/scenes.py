"""Hand-made compiled scenes for tests: a straight two-lane road along +x, with objects on it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mtdrive.simulation.metrics.registry import VERSIONS
from mtdrive.simulation.scene import (
    NUM_STEPS,
    STEP,
    Camera,
    DrivableMap,
    DrivingCommand,
    IdmPaths,
    MapLayer,
    ObjectType,
    Observation,
    Polygons,
    Reference,
    Scene,
)

LANE_WIDTH = 3.5
STEPS = {name: version.traffic.num_steps for name, version in VERSIONS.items()}
NO_IDM_PATHS = IdmPaths(
    track=np.empty(0, dtype=np.int64),
    pose=np.empty((0, 3)),
    progress=np.empty(0),
    speed=np.empty(0),
    target_speed=np.empty(0),
    lane=np.empty(0, dtype=np.int64),
    path=np.empty((0, 4)),
    path_start=np.zeros(1, dtype=np.int64),
    parked=np.empty(0, dtype=np.int64),
)


@dataclass(frozen=True)
class RoadObject:
    """A box that keeps its heading [rad] and speed [m/s] from (x, y) [m] at t0."""

    x: float
    y: float = 0.0
    heading: float = 0.0
    speed: float = 0.0
    kind: ObjectType = ObjectType.VEHICLE
    length: float = 4.6
    width: float = 1.9


def polygons(*shells: np.ndarray) -> Polygons:
    """Polygons without holes from open (V, 2) shells."""
    closed = [np.vstack([shell, shell[:1]]) for shell in shells]
    sizes = [len(ring) for ring in closed]
    return Polygons(
        xy=np.concatenate(closed) if closed else np.empty((0, 2)),
        ring_start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        polygon_start=np.arange(len(closed) + 1, dtype=np.int64),
        bounds=np.array([[*ring.min(0), *ring.max(0)] for ring in closed]).reshape(-1, 4),
    )


def rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], dtype=np.float64)


def observe(objects: list[RoadObject], steps: int) -> Observation:
    """The objects on the 10 Hz grid, moving straight on."""
    seconds = np.arange(steps)[:, None] * STEP
    start = np.array([[o.x, o.y, o.heading] for o in objects]).reshape(-1, 3)
    speed = np.array([o.speed for o in objects])
    poses = np.repeat(start[None], steps, axis=0)
    poses[:, :, 0] += seconds * speed * np.cos(start[:, 2])
    poses[:, :, 1] += seconds * speed * np.sin(start[:, 2])
    count = len(objects)
    return Observation(
        tokens=np.array([f"object{i}" for i in range(count)], dtype=str),
        kind=np.array([o.kind for o in objects], dtype=np.int8),
        size=np.array([[o.length, o.width] for o in objects]).reshape(-1, 2),
        first_heading=start[:, 2].copy(),
        first_speed=np.where([o.kind.is_agent for o in objects], speed, 0.0),
        poses=poses,
        present=np.ones((steps, count), dtype=bool),
        light_ids=np.array([], dtype=str),
        light_polygons=polygons(),
        light_red=np.zeros((steps, 0), dtype=bool),
        ignored=np.zeros(count, dtype=bool),
    )


def cruise(distance: float, speed: float) -> np.ndarray:
    """(41, 11) states straight along +x that start at `speed` and cover `distance` in 4 s at constant acceleration."""
    seconds = np.arange(NUM_STEPS) * STEP
    acceleration = 2 * (distance - 4 * speed) / 16
    states = np.zeros((NUM_STEPS, 11))
    states[:, 0] = speed * seconds + acceleration * seconds**2 / 2
    states[:, 3] = speed + acceleration * seconds
    states[:, 5] = acceleration
    return states


def straight_scene(
    objects: list[RoadObject] | None = None,
    *,
    speed: float = 8.0,
    reference_distance: float | None = None,
    token: str = "0123456789abcdef",
) -> Scene:
    """The ego drives at `speed` in the right-hand lane (y in +-1.75 m) of a road whose left lane is oncoming.

    PDM-Closed covers `reference_distance` [m] in 4 s (default: keeps the speed); so does the human.
    """
    objects = [] if objects is None else objects
    distance = 4 * speed if reference_distance is None else reference_distance
    half = LANE_WIDTH / 2
    own, oncoming = rectangle(-60, -half, 160, half), rectangle(-60, half, 160, half + LANE_WIDTH)
    plan = cruise(distance, speed)
    reference = Reference(states=plan, simulated=plan, proposal_scores=np.zeros(15))
    x = np.arange(-60.0, 160.0)
    human = np.zeros((10, 3))
    human[:, 0] = np.interp(np.arange(1, 11) * 0.5, np.arange(NUM_STEPS) * STEP, plan[:, 0])
    human[8:, 0] = plan[-1, 0] + plan[-1, 3] * np.array([0.5, 1.0])
    history = np.zeros((4, 3))
    history[:, 0] = -speed * np.array([1.5, 1.0, 0.5, 0.0])
    observations = {metric: observe(objects, steps) for metric, steps in STEPS.items()}
    boxes = observations["pdms_v1"].poses[0]
    return Scene(
        token=token,
        log_name="hand-made",
        split="test",
        map_name="us-nv-las-vegas-strip",
        timestamp=1_600_000_000_000_000,
        origin=np.array([664430.0, 3997650.0, 0.3]),
        velocity=np.array([speed, 0.0]),
        acceleration=np.zeros(2),
        history_poses=history,
        history_velocity=np.tile([speed, 0.0], (4, 1)),
        history_acceleration=np.zeros((4, 2)),
        history_timestamps=1_600_000_000_000_000 + np.array([-1_500_000, -1_000_000, -500_000, 0]),
        command=DrivingCommand.STRAIGHT,
        human_poses=human,
        centerline=np.column_stack([x, np.zeros_like(x), np.zeros_like(x)]),
        route_lane_ids=("1",),
        drivable_map=DrivableMap(
            polygons=polygons(own, oncoming, own, oncoming),
            layer=np.array([MapLayer.LANE, MapLayer.LANE, MapLayer.ROADBLOCK, MapLayer.ROADBLOCK], dtype=np.int8),
            ids=np.array(["1", "2", "3", "4"]),
            on_route=np.array([True, False, False, False]),
        ),
        current_tokens=observations["pdms_v1"].tokens,
        current_kind=observations["pdms_v1"].kind,
        current_boxes=np.column_stack([boxes, observations["pdms_v1"].size]),
        current_velocity=np.array(
            [[o.speed * np.cos(o.heading), o.speed * np.sin(o.heading)] for o in objects]
        ).reshape(-1, 2),
        camera=Camera(image="", intrinsic=np.eye(3), to_ego=np.eye(4), distortion=np.zeros(5)),
        observations=observations,
        idm_paths=NO_IDM_PATHS,
        references=dict.fromkeys(STEPS, reference),
    )
