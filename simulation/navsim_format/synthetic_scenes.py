"""Synthetic second-stage scenes of navsim v2: recorded scenes from where the ego would be had it driven differently.

One pickle each, `<token>.pkl` (navsim v2.2 `Scene.save_to_disk`): the past up to t0 as frames, and the future traffic
and its lights either as further frames or as nuPlan objects in the map's frame ("extended"). There is no human
trajectory.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import points_to_local, rotate
from mtdrive.simulation.navsim_format.checks import plain
from mtdrive.simulation.navsim_format.logs import INTERVAL, NUM_HISTORY, Frame
from mtdrive.simulation.navsim_format.pickle_names import Record
from mtdrive.simulation.navsim_format.restricted_pickle import load_pickle
from mtdrive.simulation.scene import ObjectType

TOKEN_LENGTH = 17  # by which navsim tells them from recorded scenes, whose tokens have 16 characters
NUM_FUTURE = 8  # frames after t0 that are scored
RED = 2  # nuPlan's TrafficLightStatusType


def is_synthetic(token: str) -> bool:
    """Whether a token names a synthetic scene: it has no recorded driver, and no log holds it."""
    return len(token) == TOKEN_LENGTH


CLASSES = {
    **{
        (f"nuplan.{module}", name): Record
        for module, names in {
            "common.actor_state.agent": ["Agent"],
            "common.actor_state.agent_state": ["AgentState"],
            "common.actor_state.oriented_box": ["OrientedBox", "Dimension"],
            "common.actor_state.scene_object": ["SceneObject", "SceneObjectMetadata"],
            "common.actor_state.state_representation": ["Point2D", "StateSE2", "StateVector2D", "TimePoint"],
            "common.actor_state.static_object": ["StaticObject"],
            "common.actor_state.tracked_objects": ["TrackedObjects"],
            "common.maps.maps_datatypes": ["TrafficLightStatuses", "TrafficLightStatusData"],
            "planning.simulation.observation.observation_type": ["DetectionsTracks"],
        }.items()
        for name in names
    },
    ("nuplan.common.actor_state.tracked_objects_types", "TrackedObjectType"): ObjectType,
    ("nuplan.common.maps.maps_datatypes", "TrafficLightStatusType"): int,
}


def read_synthetic_scene(path: Path) -> list[Frame]:
    """The 4 + 8 frames of a synthetic scene, as a log would hold them.

    Traffic after the last stored frame is given in the ego frame of that frame: there is no later ego pose.

    Raises:
        MTDriveError: the file is missing or damaged, or holds no such scene.
    """
    content = load_pickle(path, kind="synthetic scene", classes=CLASSES)
    try:
        metadata = content["scene_metadata"]
        frames = [stored_frame(frame, metadata) for frame in content["frames"]]
        lights = content["extended_traffic_light_data"] or []
        for index, tracks in enumerate(content["extended_detections_tracks"] or []):
            frames.append(_extended_frame(frames[-1], tracks, lights[index] if index < len(lights) else None))
        past = metadata["num_history_frames"]
    except (AttributeError, IndexError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise MTDriveError(f"{path} is no synthetic scene of navsim ({type(error).__name__}: {error}).") from None
    if past != NUM_HISTORY or len(frames) < NUM_HISTORY + NUM_FUTURE:
        raise MTDriveError(
            f"{path} holds {past} frames up to t0 and {len(frames) - NUM_HISTORY} after it; "
            f"{NUM_HISTORY} and {NUM_FUTURE} are needed."
        )
    return frames[: NUM_HISTORY + NUM_FUTURE]


def stored_frame(frame: Mapping, metadata: Mapping) -> Frame:
    """A frame as a log would hold it.

    Args:
        frame: with the fields of navsim's `Frame`, its ego status in the map's frame.
        metadata: with the fields of navsim's `SceneMetadata`.
    """
    status, annotations = frame["ego_status"], frame["annotations"]
    x, y, heading = plain(status["ego_pose"], f"ego_pose of frame {frame['token']}", (3,))
    return {
        "token": frame["token"],
        "timestamp": frame["timestamp"],
        "log_name": metadata["log_name"],
        "map_location": metadata["map_name"],
        "roadblock_ids": frame["roadblock_ids"],
        "traffic_lights": frame["traffic_lights"],
        "ego2global_translation": [x, y, 0.0],
        "ego2global_rotation": [np.cos(heading / 2), 0.0, 0.0, np.sin(heading / 2)],
        "ego_dynamic_state": [*status["ego_velocity"], *status["ego_acceleration"]],
        "driving_command": status["driving_command"],
        "cams": {name.upper(): camera for name, camera in frame["camera_dict"].items()},
        "anns": {
            "gt_boxes": annotations["boxes"],
            "gt_names": annotations["names"],
            "gt_velocity_3d": annotations["velocity_3d"],
            "track_tokens": annotations["track_tokens"],
        },
    }


def _extended_frame(before: Frame, tracks: Record, lights: Record | None) -> Frame:
    """The frame after `before`, with the ego where it was."""
    heading = 2 * np.arctan2(before["ego2global_rotation"][3], before["ego2global_rotation"][0])
    ego = np.array([*before["ego2global_translation"][:2], heading])
    return {
        **before,
        "token": "",
        "timestamp": before["timestamp"] + round(INTERVAL * 1e6),
        "traffic_lights": [(light.lane_connector_id, light.status == RED) for light in lights.traffic_lights]
        if lights is not None
        else [],
        "anns": _annotations(tracks.tracked_objects.tracked_objects, ego),
    }


def _annotations(objects: Sequence[Record], ego: np.ndarray) -> dict[str, object]:
    """Annotations of nuPlan objects in the map's frame around an ego pose (3,)."""

    def table(rows: list[tuple], columns: int) -> np.ndarray:
        return plain(np.array(rows).reshape(-1, columns), "What the extended tracks hold", (len(objects), columns))

    centers = table([(o._box._center.x, o._box._center.y, o._box._center.heading) for o in objects], 3)
    velocities = [(o._velocity._x, o._velocity._y) if hasattr(o, "_velocity") else (0.0, 0.0) for o in objects]
    boxes = np.zeros((len(objects), 7))
    boxes[:, :2] = points_to_local(centers[:, :2], ego)
    boxes[:, 3:6] = table([(o._box._length, o._box._width, o._box._height) for o in objects], 3)
    boxes[:, 6] = centers[:, 2] - ego[2]
    velocity = np.zeros((len(objects), 3))
    velocity[:, :2] = rotate(table(velocities, 2), -ego[2])
    return {
        "gt_boxes": boxes,
        "gt_names": [o._tracked_object_type.name.lower() for o in objects],
        "gt_velocity_3d": velocity,
        "track_tokens": [o._metadata.track_token for o in objects],
    }
