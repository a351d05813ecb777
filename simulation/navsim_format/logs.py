"""NAVSIM log pickles: a list of 2 Hz frames, read as windows of 4 past and 10 future frames.

What a frame holds is OpenScene's metadata; only what is read here matters. The frame of an annotation is
the ego rear axle of its own moment.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import normalize_angle, quaternion_yaw
from mtdrive.simulation.navsim_format.names import scene_token
from mtdrive.simulation.navsim_format.restricted_pickle import load_pickle
from mtdrive.simulation.scene import Camera, DrivingCommand, ObjectType

NUM_HISTORY = 4  # frames up to and with t0
NUM_FUTURE = 10  # frames after t0
INTERVAL = 0.5  # [s] between frames
MAX_STEP = 0.75  # [s] between frames; over a longer step frames are missing, or another recording begins

Frame = Mapping[str, object]

_EGO_KEYS = {"timestamp", "ego2global_translation", "ego2global_rotation", "ego_dynamic_state", "driving_command"}
_REQUIRED = _EGO_KEYS | {"token", "log_name", "map_location", "roadblock_ids", "traffic_lights", "cams", "anns"}
_KINDS = {kind.name.lower(): int(kind) for kind in ObjectType}


@dataclass(frozen=True)
class Detections:
    """Annotated objects of one frame, ordered by class (nuplan-devkit `TrackedObjects` sorts them so).

    tokens: N track tokens. kind: (N,) int8 ObjectType. boxes: (N, 5) x, y, heading, length, width of the box centre
    and velocity: (N, 2), both in the ego rear-axle frame of the frame; the velocity of static objects is 0.
    """

    tokens: list[str]
    kind: np.ndarray
    boxes: np.ndarray
    velocity: np.ndarray


def log_names(data_root: Path | str, split: str) -> list[str]:
    """Names of the logs of a split, sorted.

    Raises:
        MTDriveError: there is no such split.
    """
    folder = Path(data_root) / "navsim_logs" / split
    if not folder.is_dir():
        raise MTDriveError(f"There is no folder {folder}; check openscene_data_root and split.")
    return sorted(path.stem for path in folder.glob("*.pkl"))


def log_path(data_root: Path | str, split: str, log_name: str) -> Path:
    """Where a log lies."""
    return Path(data_root) / "navsim_logs" / split / f"{log_name}.pkl"


def read_log(path: Path) -> list[Frame]:
    """The frames of a log, in time order.

    Raises:
        MTDriveError: the file is missing or damaged, or is no NAVSIM log.
    """
    frames = load_pickle(path)
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise MTDriveError(f"{path} is no NAVSIM log: it should hold a list of frames (dicts).")
    for index, frame in enumerate(frames):
        if missing := _REQUIRED - frame.keys():
            raise MTDriveError(f"Frame {index} of {path} lacks {', '.join(sorted(missing))}; NAVSIM logs hold them.")
    return frames


def scene_windows(
    frames: Sequence[Frame], tokens: Collection[str] | None = None, frame_interval: int = 1
) -> dict[str, Sequence[Frame]]:
    """Scenes of a log, by token: windows of 14 frames whose fourth frame has a route.

    tokens selects scenes (navsim `SceneFilter`). Without it, windows with missing frames, or across two recordings
    in one log, are left out, which navsim leaves to its token lists.

    Raises:
        MTDriveError: a scene has a token that cannot name a file.
    """
    length = NUM_HISTORY + NUM_FUTURE
    gaps = _gaps_before(frames) if tokens is None else None
    windows = {}
    for start in range(0, len(frames) - length + 1, frame_interval):
        window = frames[start : start + length]
        now = window[NUM_HISTORY - 1]
        if len(now["roadblock_ids"]) == 0 or (gaps is not None and gaps[start] < gaps[start + length - 1]):
            continue
        token = scene_token(now["token"])
        if tokens is None or token in tokens:
            windows[token] = window
    return windows


def _gaps_before(frames: Sequence[Frame]) -> list[int]:
    """How many steps up to each frame jump."""
    steps = np.diff([frame["timestamp"] for frame in frames]) / 1e6
    return [0, *np.cumsum((steps <= 0) | (steps > MAX_STEP)).tolist()]


def ego_poses(frames: Sequence[Frame]) -> np.ndarray:
    """(F, 3) UTM poses of the ego rear axle."""
    rotation = np.array([frame["ego2global_rotation"] for frame in frames], dtype=np.float64)
    translation = np.array([frame["ego2global_translation"][:2] for frame in frames], dtype=np.float64)
    return np.column_stack([translation, quaternion_yaw(rotation)])


def ego_dynamics(frames: Sequence[Frame]) -> tuple[np.ndarray, np.ndarray]:
    """(F, 2) velocities and (F, 2) accelerations of the rear axle, ego frame, rounded to float32 as navsim does."""
    dynamics = np.array([frame["ego_dynamic_state"] for frame in frames], dtype=np.float32).astype(np.float64)
    return dynamics[:, :2], dynamics[:, 2:]


def detections(frame: Frame) -> Detections:
    """The annotated objects of a frame.

    Raises:
        MTDriveError: the arrays differ in length, or a class is unknown.
    """
    annotations = frame["anns"]
    tokens, names = list(annotations["track_tokens"]), np.asarray(annotations["gt_names"]).tolist()
    boxes = np.asarray(annotations["gt_boxes"], dtype=np.float64).reshape(-1, 7)
    velocity = np.asarray(annotations["gt_velocity_3d"], dtype=np.float64).reshape(-1, 3)
    if not len(tokens) == len(names) == len(boxes) == len(velocity):
        raise MTDriveError(f"The annotations of frame {frame['token']} in log {frame['log_name']} differ in length.")
    try:
        kind = np.array([_KINDS[name] for name in names], dtype=np.int8)
    except KeyError as error:
        raise MTDriveError(
            f"Frame {frame['token']} of log {frame['log_name']} names the unknown class {error}; known are "
            f"{', '.join(_KINDS)}."
        ) from None
    order = np.argsort(kind, kind="stable")
    kind, boxes, velocity = kind[order], boxes[order], velocity[order, :2]
    is_static = (kind > ObjectType.BICYCLE) & (kind != ObjectType.EGO)
    return Detections(
        tokens=[tokens[i] for i in order],
        kind=kind,
        boxes=np.column_stack([boxes[:, :2], normalize_angle(boxes[:, 6]), boxes[:, 3:5]]),
        velocity=np.where(is_static[:, None], 0.0, velocity),
    )


def red_lights(frame: Frame) -> list[str]:
    """Map ids of the lane connectors that are red."""
    return [str(connector) for connector, is_red in frame["traffic_lights"] if is_red]


def driving_command(frame: Frame) -> DrivingCommand:
    """The one in the one-hot command."""
    return DrivingCommand(int(np.argmax(frame["driving_command"])))


def front_camera(frame: Frame) -> Camera:
    """Image path and calibration of CAM_F0; an empty path if the frame has no such camera."""
    camera = frame["cams"].get("CAM_F0")
    if camera is None or not camera.get("data_path"):
        return Camera(image="", intrinsic=np.eye(3), to_ego=np.eye(4), distortion=np.zeros(5))
    to_lidar = np.eye(4)
    to_lidar[:3, :3] = camera["sensor2lidar_rotation"]
    to_lidar[:3, 3] = camera["sensor2lidar_translation"]
    return Camera(
        image=str(camera["data_path"]),
        intrinsic=np.asarray(camera["cam_intrinsic"], dtype=np.float64),
        to_ego=np.asarray(frame.get("lidar2ego", np.eye(4)), dtype=np.float64) @ to_lidar,
        distortion=np.asarray(camera["distortion"], dtype=np.float64).ravel(),
    )
