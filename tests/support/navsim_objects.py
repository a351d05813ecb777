"""Stand-ins for what navsim's loader gives an agent, with the fields that are read: navsim is not installed here."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
from PIL import Image

from mtdrive.simulation.geometry.frames import poses_to_local
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.images import image_path


def ego_status(frame: logs.Frame, pose: np.ndarray) -> SimpleNamespace:
    """Fields of navsim's `EgoStatus`."""
    dynamics = np.array(frame["ego_dynamic_state"], dtype=np.float32)
    return SimpleNamespace(
        ego_pose=pose,
        ego_velocity=dynamics[:2],
        ego_acceleration=dynamics[2:],
        driving_command=np.array(frame["driving_command"]),
    )


def agent_input(data_root: Path, frames: Sequence[logs.Frame]) -> SimpleNamespace:
    """Fields of `AgentInput.from_scene_dict_list`: local poses in float32, the image as PIL decodes it."""
    past = frames[:4]
    poses = logs.ego_poses(past)
    local = poses_to_local(poses, poses[-1]).astype(np.float32)
    image = np.array(Image.open(image_path(data_root, "test", logs.front_camera(past[-1]).image)))
    camera = SimpleNamespace(image=image)
    return SimpleNamespace(
        ego_statuses=[ego_status(frame, pose) for frame, pose in zip(past, local, strict=True)],
        cameras=[*[SimpleNamespace(cam_f0=SimpleNamespace(image=None))] * 3, SimpleNamespace(cam_f0=camera)],
    )


def navsim_scene(frames: Sequence[logs.Frame]) -> SimpleNamespace:
    """Fields of `Scene.from_scene_dict_list`: poses in the map's frame."""
    metadata = SimpleNamespace(log_name=frames[3]["log_name"], map_name=frames[3]["map_location"])
    return SimpleNamespace(
        scene_metadata=metadata,
        frames=[
            SimpleNamespace(
                token=frame["token"],
                timestamp=frame["timestamp"],
                roadblock_ids=frame["roadblock_ids"],
                traffic_lights=frame["traffic_lights"],
                ego_status=ego_status(frame, pose),
                annotations=SimpleNamespace(
                    boxes=frame["anns"]["gt_boxes"],
                    names=frame["anns"]["gt_names"],
                    velocity_3d=frame["anns"]["gt_velocity_3d"],
                    track_tokens=frame["anns"]["track_tokens"],
                ),
            )
            for frame, pose in zip(frames, logs.ego_poses(frames), strict=True)
        ],
    )
