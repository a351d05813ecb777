"""From NAVSIM frames and a map to a compiled `Scene` (what navsim's `MetricCacheProcessor` does)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.geometry.frames import points_to_local, poses_to_local, translate_forward
from mtdrive.simulation.metrics.registry import VERSIONS, RecordedTraffic
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.logs import NUM_FUTURE, NUM_HISTORY, Frame
from mtdrive.simulation.navsim_format.road_map import RoadMap
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic
from mtdrive.simulation.pdm_closed.centerline import centerline, starting_lane
from mtdrive.simulation.pdm_closed.forecast import forecast
from mtdrive.simulation.pdm_closed.planner import plan_references
from mtdrive.simulation.pdm_closed.proposals import propose
from mtdrive.simulation.pdm_closed.route import correct_route, route_lanes
from mtdrive.simulation.scene import Observation, Scene
from mtdrive.simulation.scene_cache.drivable import drivable_map, map_window
from mtdrive.simulation.scene_cache.tracks import log_replay
from mtdrive.simulation.traffic.idm_paths import build_idm_paths


def compile_scene(frames: Sequence[Frame], road_map: RoadMap, split: str) -> Scene:
    """Compile a window of frames (`logs.scene_windows`, `synthetic_scenes.read_synthetic_scene`).

    Frames after the tenth future one are not read. The scene can be scored by the versions whose future the window
    holds: a window of 8 or 9 future frames, and so a synthetic scene, by epdms_v2 alone. There navsim v1.1 has no
    score either: it raises.

    Raises:
        MTDriveError: the log and the map do not fit together, or a frame holds something that does not read.
    """
    frames = frames[: NUM_HISTORY + NUM_FUTURE]
    logs.check_complete(frames)
    now, times = frames[NUM_HISTORY - 1], logs.timestamps(frames)
    utm_poses = logs.ego_poses(frames)
    velocity, acceleration = logs.ego_dynamics(frames[:NUM_HISTORY])
    origin = utm_poses[NUM_HISTORY - 1]
    local_poses = poses_to_local(utm_poses, origin)

    route = correct_route(road_map, now["roadblock_ids"], origin)
    lanes = route_lanes(road_map, route)
    window = map_window(road_map, translate_forward(origin, vehicle.REAR_AXLE_TO_CENTER))
    start = starting_lane(road_map, window.at(origin), lanes, origin)
    path = centerline(road_map, route, lanes, start)
    local_path = np.column_stack([points_to_local(path.states[:, :2], origin), path.states[:, 2] - origin[2]])
    local_map = drivable_map(window, lanes, origin)

    traffics = {name: version.traffic for name, version in VERSIONS.items()}
    versions = {name: traffic for name, traffic in traffics.items() if len(frames) >= NUM_HISTORY + traffic.num_future}
    future = [logs.detections(frame) for frame in frames[NUM_HISTORY - 1 :]]
    expected = forecast(future[0], origin, logs.red_lights(now), _areas(road_map, lanes))
    proposals = propose(path, start.speed_limit, origin, velocity[-1, 0], expected)
    timestamp = int(times[NUM_HISTORY - 1])
    ego_state = (origin, velocity[-1], acceleration[-1], timestamp)
    return Scene(
        token=now["token"],
        log_name=now["log_name"],
        split=split,
        map_name=road_map.location,
        timestamp=timestamp,
        origin=origin,
        velocity=velocity[-1],
        acceleration=acceleration[-1],
        history_poses=local_poses[:NUM_HISTORY],
        history_velocity=velocity,
        history_acceleration=acceleration,
        history_timestamps=times[:NUM_HISTORY],
        command=logs.driving_command(now),
        human_poses=local_poses[NUM_HISTORY:] if not is_synthetic(now["token"]) else np.empty((0, 3)),
        centerline=local_path,
        route_lane_ids=tuple(lanes),
        drivable_map=local_map,
        current_tokens=np.array(future[0].tokens, dtype=np.str_),
        current_kind=future[0].kind,
        current_boxes=future[0].boxes,
        current_velocity=future[0].velocity,
        camera=logs.front_camera(now),
        observations=_observations(versions, frames, future, local_poses, road_map, origin),
        idm_paths=build_idm_paths(road_map, future[0], origin),
        references=plan_references(proposals, expected, local_map, local_path, *ego_state, versions),
    )


def _observations(
    versions: Mapping[str, RecordedTraffic],
    frames: Sequence[Frame],
    future: Sequence[logs.Detections],
    local_poses: np.ndarray,
    road_map: RoadMap,
    origin: np.ndarray,
) -> dict[str, Observation]:
    """Traffic by metric. The red lights are those of the log's route, before its correction."""
    lanes = route_lanes(road_map, frames[NUM_HISTORY - 1]["roadblock_ids"])
    light_polygons = _areas(road_map, lanes)
    observations = {}
    for metric, traffic in versions.items():
        num_frames = traffic.num_future + 1
        seen = frames[NUM_HISTORY - 1 :][:num_frames]
        observations[metric] = log_replay(
            future[:num_frames],
            local_poses[NUM_HISTORY - 1 :][:num_frames],
            [logs.red_lights(frame) if traffic.red_lights else [] for frame in seen],
            light_polygons,
            origin,
            traffic.drop_overlapping,
        )
    return observations


def _areas(road_map: RoadMap, lanes: Sequence[str]) -> dict[str, shapely.Geometry | None]:
    """Polygons of lanes by id, without those that are empty: a red light there stops nobody."""
    polygons = {id_: road_map.lanes[id_].polygon for id_ in lanes}
    return {id_: polygon for id_, polygon in polygons.items() if polygon is None or not polygon.is_empty}
