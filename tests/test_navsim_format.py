"""Reading NAVSIM's files: what is accepted, and the sentence for what is not."""

from __future__ import annotations

import copy
import os
import pickle
import shutil
import sqlite3
from pathlib import Path

import cv2
import numpy as np
import pytest

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.navsim_format.restricted_pickle import load_pickle
from mtdrive.simulation.scene import DrivingCommand, ObjectType
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.compile import compile_scene
from support import reference

DATA = reference.DATA_ROOT
LOG = "2021.06.11.12.10.21_veh-36_00100_00377"
TOKENS = ["5118e69f55dd7a54", "6bea526590790a85", "87c4fb4f54735be0", "e61617c4709ad4f6"]


@pytest.fixture(scope="module")
def frames() -> list[dict]:
    return logs.read_log(logs.log_path(DATA, "test", LOG))


@pytest.mark.parametrize("renamed", [(b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")])
def test_pickles_of_numpy_1_and_2_are_read(tmp_path, renamed):
    content = {"a": np.arange(6.0).reshape(2, 3), "b": np.float32(1.5), "c": [("x", True)], "d": np.array(["ab"])}
    path = tmp_path / "log.pkl"
    path.write_bytes(pickle.dumps(content, protocol=0).replace(*renamed))
    loaded = load_pickle(path)
    assert np.array_equal(loaded["a"], content["a"])
    assert loaded["b"] == content["b"]
    assert loaded["c"] == content["c"]
    assert loaded["d"].tolist() == ["ab"]


class _Evil:
    def __reduce__(self):
        return os.system, ("touch should_not_exist",)


def test_a_pickle_that_would_run_code_is_refused_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.pkl").write_bytes(pickle.dumps([_Evil()]))
    with pytest.raises(MTDriveError, match=r"log\.pkl holds (posix|nt)\.system"):
        load_pickle(tmp_path / "log.pkl")
    assert not (tmp_path / "should_not_exist").exists()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_a_truncated_pickle_is_named(tmp_path, share):
    whole = logs.log_path(DATA, "test", LOG).read_bytes()
    (tmp_path / "log.pkl").write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(MTDriveError, match=r"log\.pkl is truncated or damaged"):
        load_pickle(tmp_path / "log.pkl")


def test_what_is_no_log_is_named(tmp_path, frames):
    path = tmp_path / "log.pkl"
    with pytest.raises(MTDriveError, match="There is no file"):
        logs.read_log(path)
    path.write_bytes(pickle.dumps({"frames": []}))
    with pytest.raises(MTDriveError, match="no NAVSIM log"):
        logs.read_log(path)
    path.write_bytes(pickle.dumps([{key: value for key, value in frames[0].items() if key != "anns"}]))
    with pytest.raises(MTDriveError, match=r"Frame 0 of .* lacks anns"):
        logs.read_log(path)
    with pytest.raises(MTDriveError, match="There is no folder"):
        logs.log_names(DATA, "no_such_split")


def test_windows_need_a_route_and_keep_to_one_recording(frames):
    windows = logs.scene_windows(frames)
    assert set(TOKENS) <= set(windows)
    assert all(len(window) == 14 and window[3]["token"] == token for token, window in windows.items())
    across = frames[10]["token"]  # its window runs into the next recording
    assert across not in windows
    assert list(logs.scene_windows(frames, [across])) == [across]
    gappy = frames[:8] + frames[9:16]  # a frame is missing after the fourth
    assert not logs.scene_windows(gappy)
    pathless = [frame | {"roadblock_ids": []} for frame in frames]
    assert not logs.scene_windows(pathless)
    assert list(logs.scene_windows(frames[:20], frame_interval=3)) == [frames[3]["token"]]


def test_detections_are_ordered_by_class_and_only_agents_move(frames):
    seen = logs.detections(frames[3])
    assert (np.diff(seen.kind) >= 0).all()
    annotations = frames[3]["anns"]
    row = annotations["track_tokens"].index(seen.tokens[-1])
    assert np.allclose(seen.boxes[-1, [0, 1, 3, 4]], annotations["gt_boxes"][row, [0, 1, 3, 4]])
    cone = copy.deepcopy(frames[3])
    cone["anns"]["gt_names"] = np.array(["traffic_cone"] * len(seen.tokens))
    assert (logs.detections(cone).kind == ObjectType.TRAFFIC_CONE).all()
    assert not logs.detections(cone).velocity.any()


def test_annotations_that_do_not_fit_are_named(frames):
    short = frames[3] | {"anns": frames[3]["anns"] | {"track_tokens": []}}
    with pytest.raises(MTDriveError, match=f"frame {short['token']} in log {LOG} differ in length"):
        logs.detections(short)
    names = np.array(["ufo"] * len(frames[3]["anns"]["gt_names"]))
    with pytest.raises(MTDriveError, match="unknown class 'ufo'"):
        logs.detections(frames[3] | {"anns": frames[3]["anns"] | {"gt_names": names}})


NUMBERS = {  # what is read of a frame -> where it stands
    "ego2global_translation": (),
    "ego2global_rotation": (),
    "ego_dynamic_state": (),
    "driving_command": (),
    "lidar2ego": (),
    "gt_boxes": ("anns",),
    "gt_velocity_3d": ("anns",),
    "cam_intrinsic": ("cams", "CAM_F0"),
    "distortion": ("cams", "CAM_F0"),
    "sensor2lidar_rotation": ("cams", "CAM_F0"),
    "sensor2lidar_translation": ("cams", "CAM_F0"),
}


def _with(value: float):
    def change(numbers: np.ndarray) -> np.ndarray:
        return np.full(np.shape(numbers), value)

    return change


POISONS = {
    "nan": _with(np.nan),
    "inf": _with(-np.inf),
    "huge": _with(1e300),
    "text": lambda numbers: np.array(numbers).astype(str),
    "complex": lambda numbers: np.array(numbers).astype(complex),
    "objects": lambda numbers: np.array(numbers).astype(object),
    "truth": lambda numbers: np.array(numbers).astype(bool),
    "dates": lambda numbers: np.array(numbers).astype("timedelta64[s]"),
    "short": lambda numbers: np.array(numbers)[..., :-1],
    "deep": lambda numbers: [np.array(numbers)],
    "ragged": lambda numbers: [*np.array(numbers).tolist()[:-1], [1.0] * 9],
    "nothing": lambda numbers: None,
}


def _poisoned(frame: dict, field: str, change) -> dict:
    """The frame with another value of a field that NUMBERS has, or of one of its own."""
    frame = copy.deepcopy(frame)
    holder = frame
    for key in NUMBERS.get(field, ()):
        holder = holder[key]
    holder[field] = change(holder[field])
    return frame


def _compile(frames: list[dict]) -> None:
    compile_scene(frames, load_map(map_path(DATA / "maps", frames[3]["map_location"])), "test")


@pytest.mark.parametrize("poison", POISONS)
@pytest.mark.parametrize("field", NUMBERS)
def test_what_is_no_number_fails_its_scene_by_name(frames, field, poison):
    window = list(logs.scene_windows(frames, [TOKENS[1]])[TOKENS[1]])
    window[3] = _poisoned(window[3], field, POISONS[poison])
    with pytest.raises(MTDriveError) as error:
        _compile(window)
    where = "annotations" if field.startswith("gt_") and poison in ("nothing", "deep") else field
    assert all(name in str(error.value) for name in (where, TOKENS[1], LOG)), str(error.value)


@pytest.mark.parametrize(
    ("field", "change", "words"),
    [
        ("gt_boxes", lambda boxes: boxes * [1, 1, 1, -1, 1, 1, 1], "sizes must be above 0"),
        ("gt_boxes", lambda boxes: boxes * [1, 1, 1, 1, 0, 1, 1], "sizes must be above 0"),
        ("ego2global_rotation", lambda rotation: np.array(rotation) * 0.9, "norm 0.9"),
        ("driving_command", lambda command: [1, 0, 1, 0], "one 1 among 0"),
        ("driving_command", lambda command: [0.5, 0.5, 0, 0], "one 1 among 0"),
        ("traffic_lights", lambda lights: [(64391, 1j)], "true or false"),
        ("traffic_lights", lambda lights: [(float("nan"), True)], "connector's id"),
        ("timestamp", float, "no time in whole microseconds"),
        ("timestamp", lambda time: -time, "no time in whole microseconds"),
        ("timestamp", lambda time: 2**70, "no time in whole microseconds"),
        ("timestamp", lambda time: time - 600_000, "is not after"),
    ],
)
def test_numbers_that_cannot_be_fail_their_scene_by_name(frames, field, change, words):
    window = list(logs.scene_windows(frames, [TOKENS[1]])[TOKENS[1]])
    window[3] = _poisoned(window[3], field, change)
    with pytest.raises(MTDriveError, match=rf"{field} of frame {TOKENS[1]} in log {LOG} .*{words}"):
        _compile(window)


def test_a_driving_command_of_zeros_is_unknown(frames):
    commands = [[1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0], np.zeros(4)]
    read = [logs.driving_command(frames[3] | {"driving_command": command}) for command in commands]
    assert read == [DrivingCommand.LEFT, DrivingCommand.RIGHT, DrivingCommand.UNKNOWN, DrivingCommand.UNKNOWN]


def test_a_track_that_is_there_twice_is_named(frames):
    twice = {key: [*np.array(value), np.array(value)[0]] for key, value in frames[3]["anns"].items()}
    with pytest.raises(MTDriveError, match=f"frame {frames[3]['token']} in log {LOG} names a track twice"):
        logs.detections(frames[3] | {"anns": twice})


def test_the_velocity_of_static_objects_is_not_read(frames):
    cones = copy.deepcopy(frames[3])
    cones["anns"]["gt_names"] = np.array(["traffic_cone"] * len(cones["anns"]["track_tokens"]))
    cones["anns"]["gt_velocity_3d"][:] = np.nan
    assert not logs.detections(cones).velocity.any()


def test_a_bad_frame_spoils_no_scene_but_its_own(frames, tmp_path):
    """The log holds recordings of 14 and 15 frames: what is wrong in one of them is not read for the others."""
    written = copy.deepcopy(frames)
    spoilt = [index for index, frame in enumerate(frames) if frame["token"] in TOKENS][-1]
    written[spoilt + 2]["anns"]["gt_boxes"][0, 0] = np.nan
    written[spoilt + 3]["timestamp"] = "late"
    del written[spoilt + 4]["cams"]
    log = logs.log_path(tmp_path, "test", LOG)
    log.parent.mkdir(parents=True)
    log.write_bytes(pickle.dumps(written))
    report = build_caches(tmp_path, DATA / "maps", "test", tmp_path / "caches", tokens=TOKENS, workers=1)
    assert set(report.failed) == {frames[spoilt]["token"]}
    assert f"frame {frames[spoilt + 4]['token']} in log {LOG} lacks cams" in report.failed[frames[spoilt]["token"]]
    assert len(report.built) == len(TOKENS) - 1


@pytest.fixture
def maps(tmp_path) -> Path:
    shutil.copytree(DATA / "maps", tmp_path / "maps")
    return tmp_path / "maps"


def test_a_map_is_in_metres_and_linked(maps):
    road_map = load_map(map_path(maps, "us-ma-boston"))
    successors = {id_ for lane in road_map.lanes.values() for id_ in lane.successors}
    assert successors <= set(road_map.lanes)
    for roadblock in road_map.roadblocks.values():
        assert all(roadblock.id in road_map.roadblocks[id_].incoming for id_ in roadblock.outgoing)
        assert all(road_map.lanes[id_].roadblock == roadblock.id for id_ in roadblock.lanes)
    assert all(1e5 < lane.polygon.bounds[0] < 1e6 and lane.center_line.length > 1.0 for lane in road_map.lanes.values())


def _forget_layer(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM gpkg_geometry_columns WHERE table_name = 'carpark_areas'")


def _damage_geometry(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("UPDATE intersections SET geom = x'00'")


def _spoil(statement: str):
    def spoil(path: Path) -> None:
        with sqlite3.connect(path) as database:
            database.execute(statement)

    return spoil


def _move_to_nowhere(path: Path) -> None:
    with sqlite3.connect(path) as database:
        line = bytearray(database.execute("SELECT geom FROM baseline_paths").fetchone()[0])
        line[-8:] = np.float64(np.nan).tobytes()
        database.execute("UPDATE baseline_paths SET geom = ?", (bytes(line),))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_spoil("UPDATE lane_connectors SET speed_limit_mps = -1"), "lane_connectors holds the speed limit -1"),
        (_spoil("UPDATE lanes_polygons SET speed_limit_mps = 9e999"), "lanes_polygons holds the speed limit inf"),
        (_spoil("UPDATE lanes_polygons SET speed_limit_mps = 'fast'"), "lanes_polygons holds the speed limit 'fast'"),
        (_spoil("UPDATE baseline_paths SET geom = (SELECT geom FROM lanes_polygons)"), "holds a POLYGON where"),
        (_move_to_nowhere, "baseline_paths holds a point that is nowhere on the map"),
        (lambda path: path.unlink(), r"map\.gpkg is missing"),
        (lambda path: path.write_bytes(b"no database" * 100), r"Cannot read the map .*map\.gpkg"),
        (lambda path: path.write_bytes(path.read_bytes()[:50_000]), r"Cannot read the map .*map\.gpkg"),
        (_forget_layer, "has no layer carpark_areas"),
        (_damage_geometry, "layer intersections holds a geometry that is no GeoPackage geometry"),
    ],
)
def test_a_damaged_map_is_named(maps, damage, message):
    path = map_path(maps, "us-ma-boston")
    damage(path)
    with pytest.raises(MTDriveError, match=message):
        load_map(map_path(maps, "us-ma-boston"))


def test_missing_maps_are_named(maps, tmp_path):
    with pytest.raises(MTDriveError, match="lists no map 'atlantis'"):
        map_path(maps, "atlantis")
    with pytest.raises(MTDriveError, match="set nuplan_maps_root"):
        map_path(tmp_path / "nowhere", "us-ma-boston")


def test_images_are_rgb_and_damaged_ones_are_named(tmp_path):
    folder = tmp_path / "sensor_blobs/test"
    folder.mkdir(parents=True)
    picture = np.zeros((64, 96, 3), np.uint8)
    picture[..., 2] = 250  # red in OpenCV's order
    cv2.imwrite(str(folder / "a.jpg"), picture)
    image = read_image(tmp_path, "test", "a.jpg")
    assert image.shape == (64, 96, 3)
    assert image[..., 0].min() > 240 > 20 > image[..., 2].max()
    whole = (folder / "a.jpg").read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 2):
        (folder / "b.jpg").write_bytes(whole[:size])
        with pytest.raises(MTDriveError, match=r"b\.jpg is truncated or damaged"):
            read_image(tmp_path, "test", "b.jpg")
    with pytest.raises(MTDriveError, match=r"no camera image .*c\.jpg"):
        read_image(tmp_path, "test", "c.jpg")
