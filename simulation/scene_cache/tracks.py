"""Log replay: annotated tracks on the 10 Hz grid, and the red lights (navsim `MetricCacheProcessor`).

Between its first and last sighting a track is interpolated linearly, gaps included, on the nominal 2 Hz
grid whatever the timestamps say. A track that is seen once stands still there at all steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import shapely

from mtdrive.simulation import vehicle
from mtdrive.simulation.geometry.frames import box_corners, poses_to_global, translate_forward
from mtdrive.simulation.geometry.polygons import pack, polygons_to_local
from mtdrive.simulation.navsim_format.logs import INTERVAL, Detections
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import STEP, Observation

_STEPS_PER_FRAME = 5


def log_replay(
    frames: Sequence[Detections],
    ego_poses: np.ndarray,
    lights: Sequence[Sequence[str]],
    light_polygons: dict[str, shapely.Polygon],
    origin: np.ndarray,
    drop_overlapping: bool,
) -> Observation:
    """Tracks and red lights over len(frames) frames from t0 on, in the local frame.

    ego_poses: (F, 3) local rear-axle poses of the frames. lights: red connectors of each frame.
    light_polygons: UTM polygons by connector id; other connectors are left out. origin: (3,) UTM pose of the
    local frame. drop_overlapping: ignore tracks that overlap the ego at t0 (v2.2's log-replay policy does).
    """
    num_steps = (len(frames) - 1) * _STEPS_PER_FRAME + 1
    tokens = [token for frame in frames for token in frame.tokens]
    index_of = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    track = np.array([index_of[token] for token in tokens], dtype=np.int64)
    counts = [len(frame.tokens) for frame in frames]
    time = np.repeat(np.arange(len(frames)) * INTERVAL, counts)
    boxes = np.concatenate([frame.boxes for frame in frames])
    poses = poses_to_global(boxes[:, :3], np.repeat(ego_poses, counts, axis=0))

    order = np.argsort(track, kind="stable")
    start = np.searchsorted(track[order], np.arange(len(index_of) + 1))
    first = order[start[:-1]]
    steps, present = _interpolate(start, time[order], poses[order], np.arange(num_steps) * STEP)
    ids, red = _red_lights(lights, light_polygons, num_steps)
    overlapping = _overlaps_ego(steps[0], boxes[first, 3:]) if drop_overlapping else np.zeros(len(first), dtype=bool)
    return Observation(
        tokens=np.array(list(index_of), dtype=np.str_),
        kind=np.concatenate([f.kind for f in frames])[first],
        size=boxes[first, 3:],
        first_heading=poses[first, 2],
        first_speed=np.hypot(*np.concatenate([f.velocity for f in frames])[first].T),
        poses=steps,
        present=present,
        light_ids=np.array(ids, dtype=np.str_),
        light_polygons=polygons_to_local(pack(np.array([light_polygons[id_] for id_ in ids], dtype=object)), origin),
        light_red=red,
        ignored=overlapping,
    )


def _red_lights(
    lights: Sequence[Sequence[str]], polygons: dict[str, shapely.Polygon], num_steps: int
) -> tuple[list[str], np.ndarray]:
    """Ids of the connectors that are red at some step, and (S, K) bool: the state of frame floor(t / 0.5 s)."""
    red = [set(ids) & polygons.keys() for ids in lights]
    ids = sorted(set().union(*red))
    by_frame = np.array([[id_ in frame for id_ in ids] for frame in red], dtype=bool).reshape(len(lights), len(ids))
    return ids, np.repeat(by_frame, _STEPS_PER_FRAME, axis=0)[:num_steps]


def _overlaps_ego(poses: np.ndarray, size: np.ndarray) -> np.ndarray:
    center = translate_forward(np.zeros(3), vehicle.REAR_AXLE_TO_CENTER)
    ego = shapely.Polygon(box_corners(center, np.array([vehicle.LENGTH, vehicle.WIDTH])))
    absent = np.isnan(poses[:, 0])
    boxes = shapely.polygons(box_corners(np.where(absent[:, None], 0.0, poses), size))
    return shapely.intersects(boxes, ego) & ~absent


@kernel
def _interpolate(start, time, poses, steps):
    """Tracks at the times steps (S,): poses (S, A, 3) and present (S, A); rows start[a]:start[a + 1] are track a."""
    num_tracks = len(start) - 1
    out = np.full((len(steps), num_tracks, 3), np.nan)
    present = np.zeros((len(steps), num_tracks), dtype=np.bool_)
    for a in range(num_tracks):
        times, states = time[start[a] : start[a + 1]], poses[start[a] : start[a + 1]].copy()
        if times[0] == times[-1]:
            out[:, a] = states[0]
            present[:, a] = True
            continue
        for k in range(1, len(times)):
            step = states[k, 2] - states[k - 1, 2]
            states[k, 2] -= 2 * np.pi * np.round(step / (2 * np.pi))
        for s in range(len(steps)):
            if times[0] <= steps[s] <= times[-1]:
                high = min(max(np.searchsorted(times, steps[s]), 1), len(times) - 1)
                low = high - 1
                slope = (states[high] - states[low]) / (times[high] - times[low])
                out[s, a] = slope * (steps[s] - times[low]) + states[low]
                out[s, a, 2] = np.arctan2(np.sin(out[s, a, 2]), np.cos(out[s, a, 2]))
                present[s, a] = True
    return out, present
