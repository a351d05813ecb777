"""Scenes that navsim's loader refuses, and scenes that are refused here, are all named in the report of the caches.

The verdicts are those of navsim v1.1 and v2.2 on the same changed logs: `Scene.from_scene_dict_list`, the metric cache
and `pdm_score` ran to their end or raised.
"""

from __future__ import annotations

import copy
import pickle
import re

import numpy as np
import pytest

from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.scene_cache.build import CacheReport, build_caches
from support import reference

LOG, TOKEN = "2021.06.11.12.10.21_veh-36_00100_00377", "6bea526590790a85"
T0, LATER, AFTER = 3, 5, 12  # frames: t0, 1 s, and 4.5 s, which v2.2 does not look at


@pytest.fixture(scope="module")
def window() -> list[dict]:
    frames = logs.read_log(logs.log_path(reference.DATA_ROOT, "test", LOG))
    return list(logs.scene_windows(frames, [TOKEN])[TOKEN])


@pytest.fixture
def report(window, tmp_path):
    """Builds the cache of the window after it has been changed."""

    def build(change) -> CacheReport:
        frames = copy.deepcopy(window)
        change(frames)
        folder = tmp_path / "navsim_logs/test"
        folder.mkdir(parents=True)
        (folder / f"{LOG}.pkl").write_bytes(pickle.dumps(frames))
        return build_caches(tmp_path, reference.MAPS_ROOT, "test", tmp_path / "caches", tokens=[TOKEN], workers=1)

    return build


def put(index: int, key: str, value: object):
    """Sets a key of one frame."""
    return lambda frames: frames[index].__setitem__(key, value)


def without(key: str):
    """Deletes a key of all frames."""
    return lambda frames: [frame.pop(key) for frame in frames]


def annotate(index: int, key: str, change):
    """Replaces an annotation array of one frame by what a function makes of it."""
    return lambda frames: frames[index]["anns"].__setitem__(key, change(frames[index]["anns"][key]))


def cell(row: int, column: int, value: float):
    """Sets one number of an array."""

    def change(array: np.ndarray) -> np.ndarray:
        array = np.array(array)
        array[row, column] = value
        return array

    return change


def first_class(name: str):
    return lambda names: np.array([name, *names[1:]])


def twice(tokens: list) -> list:
    return [tokens[0], tokens[0], *tokens[2:]]


def without_back_camera(frames: list[dict]) -> None:
    for frame in frames:
        del frame["cams"]["CAM_B0"]


def int_tracks(frames: list[dict]) -> None:
    for frame in frames:
        frame["anns"]["track_tokens"] = [int(token[:8], 16) for token in frame["anns"]["track_tokens"]]


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (put(T0, "lidar_path", None), "lidar_path is missing"),
        (put(13, "lidar_path", None), "lidar_path is missing"),
        (without("lidar_path"), "lidar_path is missing"),
        (without("scene_token"), "scene_token is missing"),
        (annotate(T0, "instance_tokens", lambda tokens: tokens[:-1]), "differ in length"),
        (lambda frames: [frame["anns"].pop("instance_tokens") for frame in frames], "anns lacks one of"),
        (put(1, "anns", None), "anns lacks one of"),
        (annotate(1, "gt_names", first_class("animal")), "gt_names before t0 holds an unknown class"),
        (without_back_camera, "cams lacks one of the eight cameras"),
        (int_tracks, "track_tokens is not text"),
    ],
)
def test_what_navsim_refuses_and_is_not_read_here_is_noted(report, change, note):
    found = report(change)
    assert found.built == [TOKEN]
    assert [note in line and TOKEN in line for line in found.notes] == [True]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        # navsim raises
        (annotate(T0, "gt_boxes", cell(0, 0, np.nan)), "gt_boxes .* holds nan"),
        (annotate(LATER, "gt_boxes", cell(0, 6, np.nan)), "gt_boxes .* holds nan"),
        (annotate(T0, "track_tokens", twice), "names a track twice"),
        (annotate(T0, "gt_names", first_class("animal")), "unknown class 'animal'"),
        (put(T0, "roadblock_ids", ["999999999"]), "no roadblock 999999999"),
        # navsim scores it
        (annotate(LATER, "gt_boxes", cell(0, 3, np.nan)), "gt_boxes .* holds nan"),
        (annotate(T0, "gt_boxes", cell(0, 2, np.nan)), "gt_boxes .* holds nan"),
        (annotate(T0, "gt_boxes", cell(0, 3, 0.0)), "size of 0 m"),
        (annotate(LATER, "track_tokens", twice), "names a track twice"),
        (annotate(AFTER, "track_tokens", twice), "names a track twice"),
        (put(T0, "driving_command", None), "driving_command"),
        (put(T0, "traffic_lights", [(1.0, True)]), "traffic_lights"),
        (put(T0, "timestamp", 1.0), "timestamp"),
    ],
)
def test_what_is_refused_here_is_named_whether_navsim_scores_it_or_not(report, change, reason):
    found = report(change)
    assert list(found.failed) == [TOKEN]
    assert re.search(reason, found.failed[TOKEN])
    assert not found.notes


def test_what_neither_minds_is_not_noted(report):
    found = report(annotate(1, "gt_boxes", cell(0, 0, np.nan)))
    assert (found.built, found.failed, found.notes) == ([TOKEN], {}, [])
