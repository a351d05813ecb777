"""Log frames as OpenScene stores them: one dictionary every 0.5 s."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from mtdrive.simulation.camera import PinholeCamera
from mtdrive.simulation.scene import ObjectType
from mtdrive.simulation.synthetic.agents import NOW, Agent
from mtdrive.simulation.synthetic.map_files import SiteFeatures
from mtdrive.simulation.synthetic.placement import Placement
from mtdrive.simulation.synthetic.recording import RecordedDrive
from mtdrive.simulation.synthetic.rendering.scene import LightState

STRIDE = 5  # of TIMES between two frames
CURRENT = NOW // STRIDE  # frame of t0
FIRST_TIMESTAMP = 1_620_000_000_000_000  # [us]
LIDAR_TO_EGO = np.array([1.5185, 0.0, 1.6310])  # [m]
CAMERA_TO_LIDAR = np.array([0.12, 0.0, -0.13])  # [m]
FOCAL, CENTRE, SENSOR = 1545.0, (960.0, 560.0), (1920, 1080)  # [px] of nuPlan's cameras
YAWS = {"CAM_F0": 0, "CAM_L0": 55, "CAM_L1": 110, "CAM_L2": 150, "CAM_R0": -55, "CAM_R1": -110, "CAM_R2": -150,
        "CAM_B0": 180}  # fmt: skip
NAMES = {kind: kind.name.lower() for kind in ObjectType}


def token(*parts: object) -> str:
    """16 hexadecimal digits that depend on the parts alone."""
    return hashlib.blake2b("/".join(map(str, parts)).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True)
class LogWriter:
    """Makes log frames of drives."""

    image_size: tuple[int, int]
    """Width and height [px] of CAM_F0's pictures, to which all intrinsics refer."""

    def frames(
        self, log_name: str, drive: RecordedDrive, features: SiteFeatures, placement: Placement, number: int
    ) -> list[dict]:
        """The frames of a drive, 14 or more, the fourth of which is t0."""
        ego = placement.poses(drive.plan.poses)
        tokens = [token(log_name, "frame", k) for k in range(0, len(ego), STRIDE)]
        tracks = [token(log_name, "track", k) for k in range(len(drive.agents))]
        moved = [(agent, placement.poses(agent.poses), np.gradient(placement.points(agent.poses[:, :2]), 0.1, axis=0))
                 for agent in drive.agents]  # fmt: skip
        route = [str(features.fid[name]) for name in drive.situation.site.roadblocks(drive.situation.route)]
        frames = []
        for k, frame_token in enumerate(tokens):
            step = k * STRIDE
            frames.append({
                "token": frame_token,
                "frame_idx": k,
                "timestamp": FIRST_TIMESTAMP + number * 60_000_000 + k * 500_000,
                "log_name": log_name,
                "log_token": token(log_name),
                "scene_name": f"{log_name}-scene-0001",
                "scene_token": token(log_name, "scene"),
                "map_location": placement.location.name,
                "roadblock_ids": route,
                "vehicle_name": "mtdrive-synthetic",
                **self._ego(drive, ego[step], step, placement),
                "traffic_lights": _lights(drive, features, step),
                "driving_command": _command(drive, placement),
                "lidar_path": f"{log_name}/MergedPointCloud/{frame_token}.pcd",
                "cams": self._cameras(log_name, frame_token),
                "sample_prev": tokens[k - 1] if k else None,
                "sample_next": tokens[k + 1] if k + 1 < len(tokens) else None,
                "anns": _annotations(moved, tracks, ego[step], step),
            })  # fmt: skip
        return frames

    def camera(self) -> PinholeCamera:
        """The front camera."""
        to_ego = np.eye(4)
        to_ego[:3, :3] = _camera_rotation(0.0)
        to_ego[:3, 3] = LIDAR_TO_EGO + CAMERA_TO_LIDAR
        return PinholeCamera(self._intrinsic(), to_ego, np.zeros(5), *self.image_size)

    def _intrinsic(self) -> np.ndarray:
        sx, sy = self.image_size[0] / SENSOR[0], self.image_size[1] / SENSOR[1]
        return np.array([[FOCAL * sx, 0.0, CENTRE[0] * sx], [0.0, FOCAL * sy, CENTRE[1] * sy], [0.0, 0.0, 1.0]])

    def _cameras(self, log_name: str, frame_token: str) -> dict[str, dict]:
        return {
            name: {
                "data_path": f"{log_name}/{name}/{frame_token}.jpg",
                "sensor2lidar_rotation": _camera_rotation(np.deg2rad(yaw)),
                "sensor2lidar_translation": CAMERA_TO_LIDAR.copy(),
                "cam_intrinsic": self._intrinsic(),
                "distortion": np.zeros(5),
            }
            for name, yaw in YAWS.items()
        }

    def _ego(self, drive: RecordedDrive, pose: np.ndarray, step: int, placement: Placement) -> dict[str, object]:
        side = -1.0 if placement.location.left_hand else 1.0
        speed, acceleration = float(drive.plan.speed[step]), float(drive.plan.acceleration[step])
        headings = np.unwrap(drive.plan.poses[:, 2])
        yaw_rate = side * float(np.gradient(headings, 0.1)[step])
        translation = np.array([pose[0], pose[1], 0.0])
        rotation = np.array([np.cos(pose[2] / 2), 0.0, 0.0, np.sin(pose[2] / 2)])
        lidar_to_ego, ego_to_global = np.eye(4), np.eye(4)
        lidar_to_ego[:3, 3] = LIDAR_TO_EGO
        cos, sin = np.cos(pose[2]), np.sin(pose[2])
        ego_to_global[:2, :2] = [[cos, -sin], [sin, cos]]
        ego_to_global[:3, 3] = translation
        return {
            "can_bus": np.array([*translation, *rotation, acceleration, speed * yaw_rate, 9.8, 0.0, 0.0, yaw_rate,
                                 speed, 0.0, 0.0, 0.0, 0.0]),
            "lidar2ego_translation": LIDAR_TO_EGO.copy(),
            "lidar2ego_rotation": [1.0, 0.0, 0.0, 0.0],
            "ego2global_translation": translation,
            "ego2global_rotation": rotation,
            "ego_dynamic_state": [speed, 0.0, acceleration, speed * yaw_rate],
            "ego2global": ego_to_global,
            "lidar2ego": lidar_to_ego,
            "lidar2global": ego_to_global @ lidar_to_ego,
        }  # fmt: skip


def _camera_rotation(yaw: float) -> np.ndarray:
    """Camera axes (right, down, forward) in a frame that is turned back by yaw."""
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.array([[sin, 0.0, cos], [-cos, 0.0, sin], [0.0, -1.0, 0.0]])


def _command(drive: RecordedDrive, placement: Placement) -> np.ndarray:
    command = np.zeros(4, dtype=np.int64)
    index = int(drive.command)
    command[2 - index if placement.location.left_hand and index < 3 else index] = 1
    return command


def _lights(drive: RecordedDrive, features: SiteFeatures, step: int) -> list[tuple[int, bool]]:
    lights = drive.situation.lights
    return [
        (features.fid[connector.name], lights[group][step] == LightState.RED)
        for connector in drive.situation.site.connectors.values()
        if (group := drive.situation.site.lanes[connector.start].group) in lights
    ]


def _annotations(
    moved: list[tuple[Agent, np.ndarray, np.ndarray]], tracks: list[str], ego: np.ndarray, step: int
) -> dict:
    seen = [(agent, poses[step], velocity[step], track)
            for (agent, poses, velocity), track in zip(moved, tracks, strict=True) if agent.visible[step]]  # fmt: skip
    cos, sin = np.cos(ego[2]), np.sin(ego[2])
    to_ego = np.array([[cos, sin], [-sin, cos]])
    boxes, velocities = np.zeros((len(seen), 7)), np.zeros((len(seen), 3))
    for row, (agent, pose, velocity, _) in enumerate(seen):
        boxes[row, :2] = to_ego @ (pose[:2] - ego[:2])
        boxes[row, 2:6] = agent.size[2] / 2, *agent.size
        boxes[row, 6] = pose[2] - ego[2]
        velocities[row, :2] = to_ego @ velocity
    tokens = [track for *_, track in seen]
    return {
        "gt_boxes": boxes,
        "gt_names": np.array([NAMES[agent.kind] for agent, *_ in seen]),
        "gt_velocity_3d": velocities,
        "instance_tokens": [token(track, "instance", step) for track in tokens],
        "track_tokens": tokens,
    }
