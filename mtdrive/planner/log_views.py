"""What a planner sees of a scene, read from the frames of a log alone: no map, no annotations, no future."""

from __future__ import annotations

from collections.abc import Sequence

from mtdrive.planner.prompt import SceneView
from mtdrive.simulation.geometry.frames import poses_to_local
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.logs import NUM_HISTORY, Frame


def view_of_frames(frames: Sequence[Frame], image_hash: str) -> SceneView:
    """The view that `SceneView.from_scene` gives of the compiled scene.

    Args:
        frames: of the scene; the first 4, up to t0, are read.
        image_hash: of the front image at t0.

    Raises:
        MTDriveError: a frame holds something that does not read.
    """
    past = frames[:NUM_HISTORY]
    poses, (velocity, acceleration) = logs.ego_poses(past), logs.ego_dynamics(past)
    return SceneView(
        token=past[-1]["token"],
        image_hash=image_hash,
        history_poses=poses_to_local(poses, poses[-1]),
        velocity=velocity[-1],
        acceleration=acceleration[-1],
        command=logs.driving_command(past[-1]),
    )
