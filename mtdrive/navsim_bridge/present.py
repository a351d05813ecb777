"""A navsim `Scene` compiled for perceived feedback: what is known at t0, and nothing of the recorded future.

navsim gives an agent that requires the scene all of it, the future included. Only the frames up to t0 are read here;
in place of those after it the frame at t0 is repeated, so that what perceived feedback does not extrapolate itself
cannot know better.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from mtdrive.simulation.navsim_format.logs import INTERVAL, NUM_FUTURE, NUM_HISTORY, Frame
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.navsim_format.synthetic_scenes import stored_frame
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.compile import compile_scene


class NavsimScene(Protocol):
    """The fields of navsim's `Scene` that are read."""

    scene_metadata: Any
    """navsim's `SceneMetadata`."""

    frames: Sequence[Any]
    """navsim's `Frame`s, of which the first 4, up to t0, are read; ego poses are in the map's frame."""


def present_scene(scene: NavsimScene, maps_root: Path) -> Scene:
    """The scene at t0, as `compile_scene` gives it, with a future in which nothing moves.

    Raises:
        MTDriveError: the log and the map do not fit together, or a frame holds something that does not read.
    """
    metadata = vars(scene.scene_metadata)
    past = [stored_frame(_fields(frame), metadata) for frame in scene.frames[:NUM_HISTORY]]
    road_map = load_map(map_path(maps_root, scene.scene_metadata.map_name))
    return compile_scene([*past, *_standing_still(past[-1])], road_map, "")


def _fields(frame: Any) -> dict[str, Any]:
    return {
        **vars(frame),
        "ego_status": vars(frame.ego_status),
        "annotations": vars(frame.annotations),
        "camera_dict": {},  # the agent's input holds the image
    }


def _standing_still(now: Frame) -> list[Frame]:
    interval = round(INTERVAL * 1e6)
    return [{**now, "timestamp": now["timestamp"] + step * interval} for step in range(1, NUM_FUTURE + 1)]
