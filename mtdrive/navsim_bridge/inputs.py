"""From navsim's `AgentInput` to what a planner sees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mtdrive.planner.prompt import SceneView
from mtdrive.rollout.final_plan import Sight
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import image_hash
from mtdrive.simulation.navsim_format.logs import NUM_HISTORY, driving_command


class EgoStatus(Protocol):
    """The fields of navsim's class of that name that are read."""

    ego_pose: np.ndarray
    """(3,) x [m], y [m], heading [rad], ego frame at t0; float32 where navsim reads a log."""

    ego_velocity: np.ndarray
    """(2,) [m/s] in the ego frame of its own time."""

    ego_acceleration: np.ndarray
    """(2,) [m/s^2] in the ego frame of its own time."""

    driving_command: np.ndarray
    """(4,) one-hot, or all 0."""


class AgentInput(Protocol):
    """The fields of navsim's class of that name that are read. It holds no token, map or objects."""

    ego_statuses: Sequence[EgoStatus]
    """At -1.5, -1.0, -0.5 and 0 s."""

    cameras: Sequence[Any]
    """navsim's `Cameras` of the same moments, of which `cam_f0.image` of the last is read."""


def sight_of(agent_input: AgentInput) -> Sight:
    """What the planner sees in its first turn. The image is None if it was not loaded.

    Raises:
        MTDriveError: the history has another length, or the command or the image is not of a known form.
    """
    statuses = agent_input.ego_statuses
    if len(statuses) != NUM_HISTORY:
        raise MTDriveError(
            f"The planner reads {NUM_HISTORY} frames up to t0, not {len(statuses)} (num_history_frames)."
        )
    now, image = statuses[-1], agent_input.cameras[-1].cam_f0.image
    image = None if image is None else as_rgb(np.asarray(image))
    view = SceneView(
        token="",  # which an agent is not told
        image_hash="" if image is None else image_hash(image),
        history_poses=np.array([status.ego_pose for status in statuses], dtype=np.float64),
        velocity=np.asarray(now.ego_velocity, dtype=np.float64),
        acceleration=np.asarray(now.ego_acceleration, dtype=np.float64),
        command=driving_command({"driving_command": now.driving_command}),
    )
    return Sight(view, image)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """A picture as PIL gives it, (H, W), (H, W, 3) or (H, W, 4) uint8, as (H, W, 3), without transparency.

    Raises:
        MTDriveError: it has another form.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise MTDriveError(f"The front image is {image.dtype} {image.shape}, neither grey nor RGB.")
    return np.ascontiguousarray(np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image[..., :3])
