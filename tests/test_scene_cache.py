"""Compiled scenes against official intermediates, and the files that keep them."""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mtdrive import cli
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.geometry.frames import box_corners, points_to_global
from mtdrive.simulation.geometry.polygons import unpack
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.navsim_format.logs import log_names
from mtdrive.simulation.scene import MapLayer, Scene
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.format import Fingerprint, load_scene, save_scene
from mtdrive.simulation.scene_cache.store import SceneStore
from support import forged_caches, reference
from support.stores import save_index

DATA, MAPS = reference.DATA_ROOT, reference.MAPS_ROOT
OFFICIAL = np.load(reference.FOLDER / "intermediates_v1.npz")
COMPLETE = sorted(key.split("/")[0] for key in OFFICIAL.files if key.endswith("track_corners"))
BOSTON, SINGAPORE = "2021.06.11.12.10.21_veh-36_00100_00377", "2021.08.11.12.10.23_veh-38_00100_00377"
RED_AHEAD, CONSTRUCTION, TRACKS = "e61617c4709ad4f6", "e1c33c4c39967974", "3295c50926deaa2a"


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> SceneStore:
    root = tmp_path_factory.mktemp("caches")
    report = build_caches(DATA, MAPS, "test", root, tokens=COMPLETE, workers=1)
    assert sorted(report.built) == COMPLETE
    assert not report.failed
    return SceneStore(root, "test")


@pytest.mark.parametrize("token", COMPLETE)
def test_map_and_route_are_the_official_ones(store, token):
    scene = store.load(token)
    assert list(scene.route_lane_ids) == OFFICIAL[f"{token}/route_lane_ids"].tolist()
    window = scene.drivable_map
    assert window.ids.tolist() == OFFICIAL[f"{token}/map_ids"].tolist()
    assert [MapLayer(layer).name for layer in window.layer] == OFFICIAL[f"{token}/map_layers"].tolist()
    assert np.allclose([polygon.area for polygon in unpack(window.polygons)], OFFICIAL[f"{token}/map_areas"])
    on_route = [id_ for id_, lane in zip(window.ids, window.on_route, strict=True) if lane]
    assert set(on_route) <= set(scene.route_lane_ids)
    assert on_route
    assert np.allclose(points_to_global(scene.centerline[:, :2], scene.origin), OFFICIAL[f"{token}/centerline"])


@pytest.mark.parametrize("token", COMPLETE)
def test_ego_is_the_official_one(store, token):
    scene = store.load(token)
    ego = np.concatenate([scene.origin, scene.velocity, scene.acceleration])
    assert np.allclose(ego, OFFICIAL[f"{token}/ego"], rtol=0, atol=1e-9)
    assert np.allclose(scene.history_poses[-1], 0.0)
    assert (np.diff(scene.history_timestamps) > 4e5).all()
    assert scene.human_poses.shape == (10, 3)


@pytest.mark.parametrize("token", COMPLETE)
def test_tracks_are_the_official_ones(store, token):
    """Late, vanishing, gappy and once-seen tracks are all in 3295c50926deaa2a."""
    scene = store.load(token)
    seen = scene.observations["pdms_v1"]
    order = np.argsort(seen.tokens)
    assert seen.tokens[order].tolist() == OFFICIAL[f"{token}/track_tokens"].tolist()
    corners = points_to_global(box_corners(seen.poses, seen.size), scene.origin)[:, order]
    assert np.allclose(corners, OFFICIAL[f"{token}/track_corners"], rtol=0, atol=1e-7, equal_nan=True)
    assert np.array_equal(seen.present, ~np.isnan(seen.poses[..., 0]))


@pytest.mark.parametrize("token", COMPLETE)
def test_red_lights_are_the_official_ones(store, token):
    scene = store.load(token)
    seen = scene.observations["epdms_v2"]
    assert seen.light_ids.tolist() == OFFICIAL[f"{token}/red_light_ids"].tolist()
    assert np.array_equal(seen.light_red, OFFICIAL[f"{token}/red_lights"])
    assert len(scene.observations["pdms_v1"].light_ids) == 0


def test_the_camera_names_an_image(store):
    camera = store.load(RED_AHEAD).camera
    assert read_image(DATA, "test", camera.image).shape[2] == 3
    # CAM_F0 looks forward: its axis z is the ego's x
    assert camera.to_ego[0, 2] > 0.99


def _leaves(scene: Scene, prefix: str = "") -> dict[str, object]:
    leaves = {}
    for field in dataclasses.fields(scene):
        value = getattr(scene, field.name)
        children = value if isinstance(value, dict) else {"": value} if dataclasses.is_dataclass(value) else {}
        for key, child in children.items():
            leaves |= _leaves(child, f"{prefix}{field.name}.{key}.")
        if not children:
            leaves[prefix + field.name] = value
    return leaves


@pytest.fixture
def cache(store, tmp_path) -> Path:
    path = tmp_path / "scene.scene"
    save_scene(path, store.load(CONSTRUCTION), Fingerprint(log="l", map="m"))
    return path


def test_a_scene_survives_its_file(store, cache):
    before, after = _leaves(store.load(CONSTRUCTION)), _leaves(load_scene(cache))
    assert before.keys() == after.keys()
    for name, value in before.items():
        assert type(after[name]) is type(value), name
        np.testing.assert_array_equal(after[name], value, err_msg=name)
        if isinstance(value, np.ndarray):
            assert after[name].dtype == value.dtype, name
            assert not after[name].flags.writeable, name


def test_any_flipped_byte_is_found(cache):
    whole = cache.read_bytes()
    positions = {*range(0, 24), *np.random.default_rng(0).integers(24, len(whole), 200).tolist(), len(whole) - 1}
    for position in positions - {*range(20, 24)}:  # 20 to 23 are spare
        damaged = bytearray(whole)
        damaged[position] ^= 16
        cache.write_bytes(damaged)
        with pytest.raises(MTDriveError, match=r"scene\.scene"):
            load_scene(cache)


@pytest.mark.parametrize("size", [0, 7, 24, 500, -1])
def test_a_truncated_cache_is_named(cache, size):
    cache.write_bytes(cache.read_bytes()[:size])
    with pytest.raises(MTDriveError, match=r"scene\.scene .*run mtdrive cache"):
        load_scene(cache)


@pytest.mark.parametrize(("name", "value"), [("format_version", 0), ("metric_versions", {"pdms_v1": 0, "epdms_v2": 1})])
def test_a_cache_of_another_version_is_refused(cache, name, value):
    header, body = forged_caches.read(cache)
    assert name in header
    forged_caches.write(cache, header | {name: value}, body)
    with pytest.raises(MTDriveError, match="where this code needs"):
        load_scene(cache)


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [
        ("drivable_map.polygons.ring_start", -1, 10**9),
        ("drivable_map.polygons.ring_start", 1, -1),
        ("drivable_map.polygons.polygon_start", 1, 2**62),
        ("drivable_map.polygons.xy", 3, np.inf),
        ("drivable_map.layer", 0, len(MapLayer)),
        ("drivable_map.on_route", 0, 2),
        ("current_kind", 0, -1),
        ("observations.epdms_v2.poses", 0, np.nan),
        ("observations.epdms_v2.size", 0, -np.inf),
        ("idm_paths.track", 0, -1),
        ("idm_paths.lane", 0, 10**6),
        ("idm_paths.path_start", -1, 10**6),
        ("history_timestamps", 0, 0),
        ("current_tokens", 0, 2**32 - 1),
    ],
)
def test_a_forged_cache_is_refused_by_the_array(cache, name, row, value):
    header, body = forged_caches.read(cache)
    body = bytearray(body)
    dtype, shape, offset = header["arrays"][name]
    count = int(np.prod(shape)) if shape else 1
    view = np.dtype("u4") if "U" in dtype else np.dtype(dtype.replace("b1", "u1"))
    np.frombuffer(body, view, count, offset)[row] = value
    forged_caches.write(cache, header, bytes(body))
    with pytest.raises(MTDriveError, match=rf"scene\.scene holds what no scene can have \({name}\)"):
        load_scene(cache)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda header: header["arrays"]["origin"].__setitem__(2, -8), "origin"),
        (lambda header: header["arrays"]["origin"].__setitem__(1, [2**70]), "origin|int"),
        (lambda header: header["arrays"]["origin"].__setitem__(0, "|O"), "elements"),
        (lambda header: header["arrays"]["human_poses"].__setitem__(1, [7, 3]), "centerline"),
        (lambda header: header["arrays"].pop("origin"), "other arrays"),
        (lambda header: header["values"].update(token=7), "token"),
        (lambda header: header["values"].update(command=9), "9"),
        (lambda header: header["values"].update(timestamp=1), "contradict"),
        (lambda header: header["values"].update(observations=["epdms_v2"]), "observations"),
        (lambda header: header.update(fingerprint=[]), "damaged"),
    ],
)
def test_a_forged_header_is_refused(cache, edit, words):
    header, body = forged_caches.read(cache)
    edit(header)
    forged_caches.write(cache, header, body)
    with pytest.raises(MTDriveError, match=rf"scene\.scene .*({words})"):
        load_scene(cache)


def test_forged_caches_are_refused_or_score(cache, tmp_path):
    """In a process of its own, which a crash would end."""
    script = Path(forged_caches.__file__)
    command = [sys.executable, script, cache, tmp_path, "0", "300"]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    refused, scored = (int(number) for number in done.stdout.split() if number.isdigit())
    assert refused > 100
    assert scored > 50


def test_a_scene_under_another_name_is_refused(store, tmp_path):
    """A cache that was moved or copied would answer for a scene that it is not."""
    folder = tmp_path / "moved" / BOSTON
    folder.mkdir(parents=True)
    save_scene(folder / "0123456789abcdef.scene", store.load(CONSTRUCTION), Fingerprint("", ""))
    save_scene(folder / f"{CONSTRUCTION}.scene", store.load(CONSTRUCTION), Fingerprint("", ""))
    save_index(tmp_path, "moved", {BOSTON: ["0123456789abcdef", CONSTRUCTION]})
    moved = SceneStore(tmp_path, "moved")
    with pytest.raises(MTDriveError, match=f"0123456789abcdef.scene holds scene {CONSTRUCTION} of split test"):
        moved.load("0123456789abcdef")
    with pytest.raises(MTDriveError, match="of split test"):
        moved.load(CONSTRUCTION)


def test_unknown_scenes_and_unbuilt_splits_are_named(store, tmp_path):
    with pytest.raises(MTDriveError, match="no scene 0000"):
        store.load("0000")
    with pytest.raises(MTDriveError, match="run mtdrive cache split=val"):
        SceneStore(tmp_path, "val")


@pytest.fixture
def data(tmp_path) -> Path:
    shutil.copytree(DATA, tmp_path / "data")
    return tmp_path / "data"


def test_only_scenes_whose_sources_changed_are_built_again(data, tmp_path):
    arguments = (data, data / "maps", "test", tmp_path / "caches")
    first = build_caches(*arguments, workers=2)
    assert len(first.built) == 8
    assert build_caches(*arguments, workers=1).skipped == first.built

    log = data / f"navsim_logs/test/{BOSTON}.pkl"
    frames = pickle.loads(log.read_bytes())
    frames[5]["ego_dynamic_state"][0] += 1.0
    log.write_bytes(pickle.dumps(frames))
    damaged = next((tmp_path / f"caches/test/{SINGAPORE}").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1])
    again = build_caches(*arguments, workers=1)
    boston = [token for token in first.built if SceneStore(tmp_path / "caches", "test").log_name(token) == BOSTON]
    assert again.built == [*boston, damaged.stem]

    (data / "maps/sg-one-north/9.17.1964/map.gpkg").touch()
    assert not build_caches(*arguments, workers=1).built
    with open(data / "maps/sg-one-north/9.17.1964/map.gpkg", "ab") as file:
        file.write(b"\0")
    assert build_caches(*arguments, workers=1).skipped == boston


def test_a_selection_adds_to_the_store(data, tmp_path):
    arguments = (data, data / "maps", "test", tmp_path / "caches")
    build_caches(*arguments, tokens=[RED_AHEAD], workers=1)
    report = build_caches(*arguments, tokens=[CONSTRUCTION, "0000"], log_names=[SINGAPORE], workers=1)
    assert report.built == [CONSTRUCTION]
    assert list(report.failed) == ["0000"]
    assert SceneStore(tmp_path / "caches", "test").tokens == [RED_AHEAD, CONSTRUCTION]
    build_caches(*arguments, tokens=[TRACKS], log_names=[SINGAPORE], workers=1)
    assert SceneStore(tmp_path / "caches", "test").tokens == [RED_AHEAD, CONSTRUCTION, TRACKS]
    with pytest.raises(MTDriveError, match="has no log nowhere"):
        build_caches(*arguments, log_names=["nowhere"])


def _cache(data: Path, *overrides: str) -> list[str]:
    roots = [f"openscene_data_root={data}", f"nuplan_maps_root={data}/maps", f"navsim_exp_root={data}/exp"]
    return ["cache", *roots, "split=test", *overrides]


def test_a_failing_scene_is_named_and_does_not_stop_the_others(data, capsys):
    (data / f"navsim_logs/test/{BOSTON}.pkl").write_bytes(b"\x80\x04]")
    log = data / f"navsim_logs/test/{SINGAPORE}.pkl"
    frames = pickle.loads(log.read_bytes())
    next(frame for frame in frames if frame["token"] == CONSTRUCTION)["roadblock_ids"] = ["999999"]
    log.write_bytes(pickle.dumps(frames))
    assert cli.main(_cache(data, "workers=1")) == 1
    printed = capsys.readouterr().out
    assert f"{CONSTRUCTION}: Map sg-one-north has no roadblock 999999" in printed
    assert f"{BOSTON}.pkl is truncated or damaged" in printed
    assert CONSTRUCTION not in SceneStore(data / "exp/scene_cache", "test").tokens
    assert len(SceneStore(data / "exp/scene_cache", "test").tokens) == 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda path: path.write_bytes(b""), "truncated or damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-99]), "truncated or damaged"),
        (lambda path: path.write_bytes(pickle.dumps([Fraction(1, 2)])), "which is no part of a NAVSIM log"),
        (lambda path: (path.unlink(), path.mkdir()), "is no file"),
        (lambda path: (path.unlink(), path.symlink_to("nothing")), "is no file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "is no file"),
    ],
)
def test_a_log_that_does_not_read_does_not_stop_the_others(data, capsys, spoil, words):
    spoil(data / f"navsim_logs/test/{BOSTON}.pkl")
    assert cli.main(_cache(data, "workers=1")) == 1
    assert f"{BOSTON}: " in (printed := capsys.readouterr().out)
    assert words in printed
    assert {SceneStore(data / "exp/scene_cache", "test").log_name(token) for token in (CONSTRUCTION, TRACKS)} == {
        SINGAPORE
    }


def test_missing_and_damaged_images_are_named_by_log(data, capsys):
    assert cli.main(_cache(data, "workers=1", "check_images=true", f"log_names=[{SINGAPORE}]")) == 0
    assert "front images of 3 scenes: all there" in capsys.readouterr().out
    assert cli.main(_cache(data, "workers=1")) == 0  # only where asked for
    store = SceneStore(data / "exp/scene_cache", "test")
    pictures = data / "sensor_blobs/test"
    boston = [token for token in store.tokens if store.log_name(token) == BOSTON]
    (pictures / store.load(TRACKS).camera.image).write_bytes(b"<html>not found</html>")
    for path in (pictures / BOSTON / "CAM_F0").iterdir():
        path.unlink()
    assert cli.main(_cache(data, "workers=2", "check_images=true")) == 1
    printed = capsys.readouterr().out
    assert f"{BOSTON}: {len(boston)} of {len(boston)} front images" in printed
    assert sum(f"  {token}: There is no camera image {pictures}" in printed for token in boston) == 3 < len(boston)
    assert f"{SINGAPORE}: 1 of {8 - len(boston)} front images" in printed
    assert f"  {TRACKS}: The camera image" in printed
    assert f"front images of 8 scenes: {len(boston) + 1} are missing or do not read, in 2 of 2 logs" in printed


def test_a_map_that_does_not_read_does_not_stop_the_others(data, capsys):
    (data / "maps/us-ma-boston/9.12.1817/map.gpkg").write_bytes(b"no map")
    assert cli.main(_cache(data, "workers=1")) == 1
    assert f"{RED_AHEAD}: Cannot read the map" in capsys.readouterr().out
    assert set(SceneStore(data / "exp/scene_cache", "test").log_names) == {SINGAPORE}


def test_a_scene_in_two_logs_is_that_of_the_first(data, capsys):
    shutil.copy(data / f"navsim_logs/test/{BOSTON}.pkl", data / f"navsim_logs/test/{SINGAPORE}.pkl")
    assert cli.main(_cache(data, "workers=1")) == 1
    assert f"{RED_AHEAD}: Log {SINGAPORE} holds it again" in capsys.readouterr().out
    store = SceneStore(data / "exp/scene_cache", "test")
    assert len(store.tokens) == len(set(store.tokens)) == 5


@pytest.mark.parametrize(
    "content",
    ["[]", "7", "null", "{", '{"a": []}', '{"a": {"log": "", "tokens": "x"}}', '{"a": {"log": "", "tokens": [1]}}',
     '{"a": {"log": "", "tokens": ["x"]}, "b": {"log": "", "tokens": ["x"]}}', '{"a": {"tokens": []}}', "[" * 10**5],
)  # fmt: skip
@pytest.mark.parametrize("part", ["whole", "logs", "scene_set"])
def test_a_damaged_index_is_named(tmp_path, content, part):
    save_index(tmp_path, "test", {"a": ["a" * 16]})
    path = tmp_path / "test/index.json"
    parts = {key: json.dumps(value) for key, value in json.loads(path.read_text()).items()} | {part: content}
    whole = "{" + ", ".join(f'"{key}": {value}' for key, value in parts.items()) + "}"
    path.write_text(content if part == "whole" else whole)
    with pytest.raises(MTDriveError, match=r"index\.json .*run mtdrive cache"):
        SceneStore(tmp_path, "test")


@pytest.mark.parametrize("split", ["./test", "train/../test", "/etc", "..", "a.b", "", "te st", 7])
def test_a_split_is_one_folder(split, tmp_path):
    for read in (SceneStore, log_names):
        with pytest.raises(MTDriveError, match="is no split name"):
            read(tmp_path, split)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["openscene_data_root=/nowhere"], "There is no folder /nowhere/navsim_logs/test"),
        (["openscene_data_root=null"], "OPENSCENE_DATA_ROOT"),
        (["split=val"], "There is no folder"),
        (["tokens=[a]", "log_names=[b]"], "has no log b"),
        (["navsim_exp_root=/dev/null"], "Cannot write scene caches to /dev/null"),
        (["no_such_key=1"], "no_such_key"),
    ],
)
def test_bad_input_ends_with_one_sentence(capsys, overrides, sentence):
    assert cli.main(_cache(DATA, *overrides)) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "Traceback" not in error


def test_a_killed_build_goes_on_where_it_was(data):
    """The log is repeated under new names, so that there is something to interrupt."""
    source = data / f"navsim_logs/test/{SINGAPORE}.pkl"
    for copy in range(12):
        frames = pickle.loads(source.read_bytes())
        for frame in frames:
            frame["token"] = f"x{copy:x}{frame['token'][2:]}"
        (data / f"navsim_logs/test/copy{copy}.pkl").write_bytes(pickle.dumps(frames))
    command = [sys.executable, "-m", "mtdrive.cli", *_cache(data, "workers=2")]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    caches = data / "exp/scene_cache/test"
    while process.poll() is None and len(list(caches.glob("*/*.scene"))) < 4:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in caches.glob("*/*.scene")}
    assert not (caches / "index.json").exists()

    assert cli.main(_cache(data, "workers=1")) == 0
    store = SceneStore(data / "exp/scene_cache", "test")
    assert len(store.tokens) == len(set(store.tokens)) == 8 + 12 * 3
    assert all(store.load(token).token == token for token in store.tokens)
    assert {path: path.stat().st_mtime_ns for path in done} == done
    index = json.loads((caches / "index.json").read_text())
    assert sum(len(log["tokens"]) for log in index["logs"].values()) == len(store.tokens)
