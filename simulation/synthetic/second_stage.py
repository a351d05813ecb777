"""Second-stage scenes of navsim v2, made of a drive: where the ego would be had it driven a little differently."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mtdrive.simulation.synthetic.logs import CURRENT, token
from mtdrive.simulation.synthetic.recording import RecordedDrive


def moved(drive: RecordedDrive, aside: float) -> RecordedDrive:
    """The drive with the ego `aside` [m] to the left of where it was all the time."""
    poses = drive.plan.poses.copy()
    poses[:, 0] -= aside * np.sin(poses[:, 2])
    poses[:, 1] += aside * np.cos(poses[:, 2])
    return replace(drive, plan=replace(drive.plan, poses=poses))


def synthetic_token(*parts: object) -> str:
    """17 hexadecimal digits, by which navsim tells these scenes from recorded ones; they depend on the parts alone."""
    return f"{token(*parts)}{token(*parts, 'last')[-1]}"


def synthetic_scene(frames: list[dict], original: str, first_stage: str) -> dict[str, dict | list | None]:
    """What navsim v2.2's `Scene.save_to_disk` writes for the 12 log frames of a window, all of them stored.

    Args:
        frames: log frames, the fourth of which is t0.
        original: token of the recorded frame at t0.
        first_stage: token of the recorded scene that ends there.
    """
    initial = frames[CURRENT]["token"]
    return {
        "scene_metadata": {
            "log_name": frames[0]["log_name"],
            "scene_token": synthetic_token(initial, "file"),
            "map_name": frames[0]["map_location"],
            "initial_token": initial,
            "num_history_frames": CURRENT + 1,
            "num_future_frames": len(frames) - CURRENT - 1,
            "corresponding_original_scene": original,
            "corresponding_original_initial_token": first_stage,
        },
        "frames": [
            {
                **{key: frame[key] for key in ("token", "timestamp", "roadblock_ids", "traffic_lights", "lidar_path")},
                "annotations": {key.removeprefix("gt_"): value for key, value in frame["anns"].items()},
                "ego_status": {
                    "ego_pose": _pose(frame),
                    "ego_velocity": np.array(frame["ego_dynamic_state"][:2], dtype=np.float32),
                    "ego_acceleration": np.array(frame["ego_dynamic_state"][2:], dtype=np.float32),
                    "driving_command": frame["driving_command"],
                    "in_global_frame": True,
                },
                "camera_dict": {name.lower(): camera for name, camera in frame["cams"].items()},
            }
            for frame in frames
        ],
        "extended_traffic_light_data": None,
        "extended_detections_tracks": None,
    }


def _pose(frame: dict) -> np.ndarray:
    w, _, _, z = frame["ego2global_rotation"]
    return np.array([*frame["ego2global_translation"][:2], 2 * np.arctan2(z, w)])
