"""NAVSIM log pickles: a list of 2 Hz frames, read as windows of 4 past and 8 or more future frames.

A frame holds OpenScene's metadata, of which only a part is read here. Annotations are in the ego rear-axle frame of
their own time.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set, Sized
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import normalize_angle, quaternion_yaw
from mtdrive.simulation.navsim_format.checks import bounded, is_time, numbers, plain
from mtdrive.simulation.navsim_format.names import scene_token, split_name
from mtdrive.simulation.navsim_format.restricted_pickle import load_pickle
from mtdrive.simulation.scene import Camera, DrivingCommand, ObjectType

NUM_HISTORY = 4  # frames up to and with t0
NUM_FUTURE = 10  # frames after t0 that are read: pdms_v1 needs the traffic of 5 s
LEAST_FUTURE = 8  # frames after t0, for epdms_v2
INTERVAL = 0.5  # [s] between frames
MAX_STEP = 0.75  # [s] between frames; over a longer step frames are missing, or another recording begins

Frame = Mapping[str, Any]  # checked where it is read

_EGO_KEYS = {"timestamp", "ego2global_translation", "ego2global_rotation", "ego_dynamic_state", "driving_command"}
_NAMING_KEYS = {"token", "log_name", "roadblock_ids"}  # without which no scene can be told
_REQUIRED = _EGO_KEYS | _NAMING_KEYS | {"map_location", "traffic_lights", "cams", "anns"}
_ANNOTATIONS = ("track_tokens", "gt_names", "gt_boxes", "gt_velocity_3d")
_ID_TYPES = {int, str, np.int32, np.int64, np.str_}

# More than that is no measurement: [m] in the map, [m] and [rad] around the ego, [m/s] and [m/s^2], camera [pixel]
_MOST_GLOBAL, _MOST_LOCAL, _MOST_MOTION, _MOST_CAMERA = 1e8, 1e4, 1e3, 1e6
_NORM_ERROR = 0.01  # of a quaternion, which is normalised before use

CLASSES = {kind.name.lower(): int(kind) for kind in ObjectType}  # by their names in a log


@dataclass(frozen=True)
class Detections:
    """Annotated objects of one frame, ordered by class (nuplan-devkit `TrackedObjects` sorts them so)."""

    tokens: list[str]
    """N track tokens."""

    kind: np.ndarray
    """(N,) int8 ObjectType."""

    boxes: np.ndarray
    """(N, 5) x, y, heading of the box centre, length, width [m, rad], in the ego rear-axle frame of the frame."""

    velocity: np.ndarray
    """(N, 2) [m/s] in the same frame; 0 for static objects."""


def log_names(data_root: Path | str, split: str) -> list[str]:
    """Names of the logs of a split, sorted.

    Raises:
        MTDriveError: there is no such split.
    """
    split_name(split)
    folder = Path(data_root) / "navsim_logs" / split
    if not folder.is_dir():
        raise MTDriveError(f"There is no folder {folder}; check openscene_data_root and split.")
    return sorted(path.stem for path in folder.glob("*.pkl"))


def log_path(data_root: Path | str, split: str, log_name: str) -> Path:
    """Path of a log file."""
    return Path(data_root) / "navsim_logs" / split / f"{log_name}.pkl"


def read_log(path: Path, required: Set[str] = _REQUIRED) -> list[Frame]:
    """The frames of a log, in time order.

    The contents of a frame are checked where they are read, so that a bad frame fails only the scenes that hold it.

    Args:
        required: keys that no frame may lack if they name scenes, and that not all may lack.

    Raises:
        MTDriveError: the file is missing or damaged, or is no NAVSIM log.
    """
    frames = load_pickle(path)
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise MTDriveError(f"{path} is no NAVSIM log: it should hold a list of frames (dicts).")
    lacking = [required - frame.keys() for frame in frames]
    for index, missing in enumerate(lacking):
        if missing & _NAMING_KEYS or all(lacking):
            raise MTDriveError(f"Frame {index} of {path} lacks {', '.join(sorted(missing))}; NAVSIM logs hold them.")
    return frames


def check_complete(frames: Sequence[Frame]) -> None:
    """Refuse frames that lack a key.

    Raises:
        MTDriveError: one does; the sentence names the frame and the keys.
    """
    for frame in frames:
        if not frame.keys() >= _REQUIRED:
            missing = _REQUIRED - frame.keys()
            raise MTDriveError(f"The {_name(frame)} lacks {', '.join(sorted(missing))}; NAVSIM logs hold them.")


def scene_windows(
    frames: Sequence[Frame],
    tokens: Collection[str] | None = None,
    frame_interval: int | None = 1,
    num_future: int = NUM_FUTURE,
    has_route: bool = True,
    across_gaps: bool = False,
) -> dict[str, Sequence[Frame]]:
    """Scenes of a log, by token: windows of 4 frames up to t0 and num_future after it (navsim `filter_scenes`).

    Windows that do not read are kept, so that they are named when they are compiled.

    Args:
        tokens: of the scenes to select; None for all.
        frame_interval: frames from the start of one window to that of the next; None for windows that do not overlap.
        num_future: frames after t0, at least 8: epdms_v2 needs 4 s of traffic, pdms_v1 needs 5 s.
        has_route: leave out scenes without a route.
        across_gaps: whether windows with missing frames, or across two recordings in one log, are scenes, too, as in
            navsim; those that tokens name always are.

    Raises:
        MTDriveError: the window is too short, the interval is below 1, or a scene has a token that cannot name a file.
    """
    if num_future < LEAST_FUTURE:
        raise MTDriveError(f"{num_future} future frames are too few: the scores need at least {LEAST_FUTURE}.")
    length = NUM_HISTORY + num_future
    interval = length if frame_interval is None else frame_interval
    if interval < 1:
        raise MTDriveError(f"frame_interval is {interval}; it must be at least 1.")
    gaps = _gaps_before(frames) if tokens is None and not across_gaps else None
    windows = {}
    for start in range(0, len(frames) - length + 1, interval):
        window = frames[start : start + length]
        now = window[NUM_HISTORY - 1]
        without_route = isinstance(now["roadblock_ids"], Sized) and len(now["roadblock_ids"]) == 0
        if (has_route and without_route) or (gaps is not None and gaps[start] < gaps[start + length - 1]):
            continue
        token = scene_token(now["token"])
        if tokens is None or token in tokens:
            windows[token] = window
    return windows


def _gaps_before(frames: Sequence[Frame]) -> list[int]:
    """Number of gaps in time before each frame; frames without a valid time have none beside them."""
    times: list[Any] = [frame.get("timestamp") for frame in frames]
    known = list(map(is_time, times))
    jumps = (
        known[i] and known[i + 1] and not 0 < times[i + 1] - times[i] <= MAX_STEP * 1e6 for i in range(len(times) - 1)
    )
    return [0, *accumulate(jumps)]


def timestamps(frames: Sequence[Frame]) -> np.ndarray:
    """(F,) int64 times [us].

    Raises:
        MTDriveError: one is not a time, or they do not increase.
    """
    times = [frame["timestamp"] for frame in frames]
    for frame, time, before in zip(frames, times, [-1, *times], strict=False):
        if not is_time(time):
            raise MTDriveError(f"timestamp of {_name(frame)} is {time!r}, no time in whole microseconds.")
        if time <= before:
            raise MTDriveError(f"timestamp of {_name(frame)} is not after that of the frame before it.")
    return np.array(times, dtype=np.int64)


def ego_poses(frames: Sequence[Frame]) -> np.ndarray:
    """(F, 3) UTM poses of the ego rear axle.

    Raises:
        MTDriveError: a translation is not three finite numbers, or a rotation is not a unit quaternion.
    """
    rotation = _table(frames, "ego2global_rotation", 4, 1.0 + _NORM_ERROR)
    translation = _table(frames, "ego2global_translation", 3, _MOST_GLOBAL)
    norm = np.linalg.norm(rotation, axis=1)
    if len(wrong := np.flatnonzero(np.abs(norm - 1.0) > _NORM_ERROR)):
        frame = frames[wrong[0]]
        raise MTDriveError(f"ego2global_rotation of {_name(frame)} has the norm {norm[wrong[0]]:g} instead of 1.")
    return np.column_stack([translation[:, :2], quaternion_yaw(rotation)])


def ego_dynamics(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """(F, 2) velocities and (F, 2) accelerations of the rear axle, ego frame, rounded to float32 as navsim does.

    Raises:
        MTDriveError: a frame's values are not four finite numbers.
    """
    dynamics = _table(frames, "ego_dynamic_state", 4, _MOST_MOTION).astype(np.float32).astype(np.float64)
    return dynamics[:, :2], dynamics[:, 2:]


def detections(frame: Frame) -> Detections:
    """The annotated objects of a frame.

    The velocity of static objects is set to 0 and not read: it was never measured.

    Raises:
        MTDriveError: the arrays differ in length, a class is unknown, a track occurs twice, a box is not finite or has
            no size, or the velocity of an agent is not finite.
    """
    annotations, where = frame["anns"], _name(frame)
    try:
        tokens, names, boxes, velocity = (annotations[key] for key in _ANNOTATIONS)
        tokens, names = list(tokens), np.asarray(names).tolist()
        distinct, lengths = len(set(tokens)), {len(tokens), len(names), len(boxes), len(velocity)}
        unknown = [name for name in names if name not in CLASSES]
    except (KeyError, TypeError, ValueError):
        raise MTDriveError(f"The annotations of {where} must be lists {', '.join(_ANNOTATIONS)}.") from None
    if len(lengths) > 1:
        raise MTDriveError(f"The annotations of {where} differ in length.")
    if distinct < len(tokens):
        raise MTDriveError(f"track_tokens of {where} names a track twice.")
    if unknown:
        raise MTDriveError(f"gt_names of {where} holds the unknown class {unknown[0]!r}; known: {', '.join(CLASSES)}.")
    kind = np.array([CLASSES[name] for name in names], dtype=np.int8)
    if not tokens:
        boxes, velocity = np.empty((0, 7)), np.empty((0, 3))
    boxes = numbers(boxes, f"gt_boxes of {where}", (None, 7), _MOST_LOCAL)
    if len(boxes) and boxes[:, 3:6].min() <= 0.0:
        raise MTDriveError(f"gt_boxes of {where} holds a size of {boxes[:, 3:6].min():g} m; sizes must be above 0.")
    velocity = plain(velocity, f"gt_velocity_3d of {where}", (None, 3))[:, :2]
    is_static = (kind > ObjectType.BICYCLE) & (kind != ObjectType.EGO)
    velocity = bounded(np.where(is_static[:, None], 0.0, velocity), f"gt_velocity_3d of {where}", _MOST_MOTION)
    order = np.argsort(kind, kind="stable")
    boxes = boxes[order]
    return Detections(
        tokens=[tokens[i] for i in order],
        kind=kind[order],
        boxes=np.column_stack([boxes[:, :2], normalize_angle(boxes[:, 6]), boxes[:, 3:5]]),
        velocity=velocity[order],
    )


def red_lights(frame: Frame) -> list[str]:
    """Map ids of the lane connectors that are red.

    Raises:
        MTDriveError: the lights are not pairs of an id and whether it is red.
    """
    lights = frame["traffic_lights"]
    try:
        ids, states = zip(*lights, strict=True) if len(lights) else ((), ())
        readable = set(map(type, ids)) <= _ID_TYPES and set(map(type, states)) <= {bool, np.bool_}
    except (TypeError, ValueError):
        readable = False
    if not readable:
        raise MTDriveError(f"traffic_lights of {_name(frame)} must be pairs of a connector's id and true or false.")
    return [str(connector) for connector, is_red in lights if is_red]


def driving_command(frame: Frame) -> DrivingCommand:
    """The navigation command at a frame, from its one-hot vector; UNKNOWN if that is all 0.

    Raises:
        MTDriveError: it is neither one-hot nor all 0.
    """
    command = _numbers(frame, "driving_command", (len(DrivingCommand),), 1.0)
    if not (command == (command == 1.0)).all() or command.sum() > 1.0:
        raise MTDriveError(f"driving_command of {_name(frame)} is {command.tolist()}; it must hold one 1 among 0.")
    return DrivingCommand(int(np.argmax(command))) if command.any() else DrivingCommand.UNKNOWN


def front_camera(frame: Frame) -> Camera:
    """Image path and calibration of CAM_F0; an empty path if the frame has no such camera.

    Raises:
        MTDriveError: the calibration is incomplete or not finite.
    """
    cameras = frame["cams"]
    camera = cameras.get("CAM_F0") if isinstance(cameras, Mapping) else None
    if not camera or not camera.get("data_path"):
        return Camera(image="", intrinsic=np.eye(3), to_ego=np.eye(4), distortion=np.zeros(5))

    def calibration(key: str, *shape: int) -> np.ndarray:
        return numbers(camera.get(key), f"{key} of CAM_F0 of {_name(frame)}", shape, _MOST_CAMERA)

    to_lidar = np.eye(4)
    to_lidar[:3, :3] = calibration("sensor2lidar_rotation", 3, 3)
    to_lidar[:3, 3] = calibration("sensor2lidar_translation", 3)
    lidar_to_ego = _numbers(frame, "lidar2ego", (4, 4), _MOST_CAMERA) if "lidar2ego" in frame else np.eye(4)
    return Camera(
        image=str(camera["data_path"]),
        intrinsic=calibration("cam_intrinsic", 3, 3),
        to_ego=lidar_to_ego @ to_lidar,
        distortion=calibration("distortion", 5),
    )


def _numbers(frame: Frame, key: str, shape: tuple[int, ...], most: float) -> np.ndarray:
    return numbers(frame[key], f"{key} of {_name(frame)}", shape, most)


def _table(frames: Sequence[Frame], key: str, columns: int, most: float) -> np.ndarray:
    """(F, columns) numbers of all frames."""
    table = np.array([plain(frame[key], f"{key} of {_name(frame)}", (columns,)) for frame in frames])
    if not (np.abs(table) <= most).all():
        for frame, row in zip(frames, table, strict=True):
            bounded(row, f"{key} of {_name(frame)}", most)
    return table


def _name(frame: Frame) -> str:
    return f"frame {frame.get('token') or 'after t0'} in log {frame.get('log_name')}"
