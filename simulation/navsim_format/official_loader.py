"""What navsim's own loader refuses although nothing of it is read here: such scenes are scored and named.

Sources: `Scene.from_scene_dict_list` and `annotations_to_detection_tracks` of navsim v1.1 and v2.2. What it refuses of
what is read here fails where it is read.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from mtdrive.simulation.navsim_format.logs import CLASSES, NUM_HISTORY, Frame
from mtdrive.simulation.navsim_format.maps import ALIASES

_CAMERAS = {"cam_f0", "cam_l0", "cam_l1", "cam_l2", "cam_r0", "cam_r1", "cam_r2", "cam_b0"}
_ANNOTATIONS = ("gt_boxes", "gt_names", "gt_velocity_3d", "instance_tokens", "track_tokens")
_CLASSES = list(CLASSES)  # a list: what it is searched for may not be hashable
_SHOWN = 5  # tokens that a note names


def objection(frames: Sequence[Frame]) -> str | None:
    """Why navsim's loader refuses the window of a scene, as the end of a sentence; None if it does not."""
    now = frames[NUM_HISTORY - 1]
    if now.get("map_location") in ALIASES:
        return f"map_location is {now['map_location']}, which is {ALIASES[now['map_location']]} there"
    if "scene_token" not in now:
        return "scene_token is missing"
    return next((found for index, frame in enumerate(frames) if (found := _objection(frame, index))), None)


def _objection(frame: Frame, index: int) -> str | None:
    if frame.get("lidar_path") is None:
        return "lidar_path is missing"
    cameras = frame.get("cams")
    if not isinstance(cameras, Mapping) or not {str(name).lower() for name in cameras} >= _CAMERAS:
        return "cams lacks one of the eight cameras"
    try:
        columns = {name: list(frame["anns"][name]) for name in _ANNOTATIONS}
    except (KeyError, TypeError):
        return f"anns lacks one of {', '.join(_ANNOTATIONS)}"
    if len(set(map(len, columns.values()))) > 1:
        return f"{', '.join(_ANNOTATIONS)} differ in length"
    if index < NUM_HISTORY and not all(name in _CLASSES for name in columns["gt_names"]):
        return "gt_names before t0 holds an unknown class"  # v2 reads the tracks of the past
    if not all(isinstance(token, str) for token in columns["track_tokens"]):
        return "track_tokens is not text"
    return None


def notes(objections: Mapping[str, str]) -> list[str]:
    """A sentence for each objection, from the objections by token."""
    tokens = defaultdict(list)
    for token, reason in objections.items():
        tokens[reason].append(token)
    return [
        f"navsim's own loader refuses {len(found)} scenes that are scored here "
        f"({', '.join(found[:_SHOWN])}{', ...' if len(found) > _SHOWN else ''}): {reason}."
        for reason, found in tokens.items()
    ]
