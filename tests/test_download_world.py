"""tools/download_world.py: a world laid out and filtered like a download of NAVSIM, that our readers take."""

import pickle

import cv2
import pytest
import yaml
from download_world import ASIDE, FILTERS, NAVTEST, write_download

from mtdrive.simulation.geometry.frames import points_to_local
from mtdrive.simulation.navsim_format.logs import ego_poses, log_names, read_log, scene_windows
from mtdrive.simulation.navsim_format.synthetic_scenes import is_synthetic, read_synthetic_scene
from mtdrive.simulation.scene_cache.build import build_caches

SCENES = {"train": 10, "test": 30}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder, and what its logs bring; logs of three locations."""
    out = tmp_path_factory.mktemp("download") / "world"
    return out, write_download(out, SCENES, two_stage=1, missing=0.3, width=192, seed=2, workers=2)


def group(out, name):
    """Contents of the two files of a filter, as texts."""
    folder = out / FILTERS / "train_test_split"
    files = (folder / f"{name}.yaml", folder / "scene_filter" / f"{name}.yaml")
    return [yaml.load(path.read_text(), yaml.CBaseLoader) for path in files]


def found(out, split, tokens):
    """Scenes of a data split that have these tokens."""
    folder = out / "dataset" / "navsim_logs" / split
    windows = {}
    for name in log_names(out / "dataset", split):
        windows |= scene_windows(read_log(folder / f"{name}.pkl"), set(tokens))
    return windows


def test_filters_list_more_than_the_world_holds(world):
    out, logs = world
    split, chosen = group(out, "navtest")
    assert split == {"defaults": [{"scene_filter": "navtest"}], "data_split": "test"}
    assert len(set(chosen["tokens"])) == NAVTEST
    scenes = [token for log in logs if log.split == "test" for token in log.scenes]
    windows = found(out, "test", chosen["tokens"])
    assert sorted(windows) == sorted(scenes)
    assert len(scenes) == SCENES["test"]
    assert sum(token.isdigit() for token in scenes) == 3  # one in each log ...
    assert sum(token.replace("e", "").isdigit() for token in scenes) == 6  # ... and one that is a float
    split, chosen = group(out, "navmini")
    assert split["data_split"] == "mini"
    assert sorted(found(out, "mini", chosen["tokens"])) == sorted(chosen["tokens"])


def test_only_scenes_have_pictures_and_not_all_of_them(world):
    out, logs = world
    for log in logs:
        blobs = out / "dataset" / "sensor_blobs" / log.split / log.name / "CAM_F0"
        there = {path.stem for path in blobs.glob("*.jpg")}
        assert not there & set(log.missing)
        assert set(log.scenes) <= there | set(log.missing)
        assert len(there) == log.pictures
    missing, written = sum(len(log.missing) for log in logs), sum(log.pictures for log in logs)
    assert missing / (missing + written) == pytest.approx(0.3, abs=0.15)
    assert cv2.imread(str(next(blobs.glob("*.jpg")))).shape == (108, 192, 3)


def test_second_stages_begin_where_first_stages_end(world):
    out, _ = world
    split, chosen = group(out, "navhard_two_stage")
    folder = out / "dataset" / "navhard_two_stage"
    scenes = {}
    for path in (folder / "synthetic_scene_pickles").glob("*.pkl"):
        scenes[pickle.loads(path.read_bytes())["scene_metadata"]["initial_token"]] = read_synthetic_scene(path)
    assert set(scenes) == set(chosen["reactive_synthetic_initial_tokens"])
    assert all(map(is_synthetic, scenes))
    (log,) = chosen["log_names"]
    frames = read_log(out / "dataset" / "navsim_logs" / "test" / f"{log}.pkl")
    place = {frame["token"]: k for k, frame in enumerate(frames)}
    assert len(split["reactive_all_mapping"]) == 2
    for now, before, pairs in split["reactive_all_mapping"]:
        assert place[now] == place[before] + 1
        assert {now, before} <= set(chosen["tokens"])
        for pair, aside in zip(pairs, ASIDE, strict=True):
            for token, first in zip(pair, (now, before), strict=True):
                begin, end = scenes[token][3], frames[place[first] + 8]
                offset = points_to_local(ego_poses([begin])[0, :2], ego_poses([end])[0])
                assert begin["timestamp"] == end["timestamp"]
                assert offset == pytest.approx([0.0, aside], abs=1e-6)
                assert (folder / "sensor_blobs" / begin["cams"]["CAM_F0"]["data_path"]).is_file()


def test_all_scenes_compile_on_maps_like_the_real_ones(world, tmp_path):
    out, logs = world
    tokens = [token for log in logs if log.split == "test" for token in log.scenes]
    root = out / "dataset"
    report = build_caches(root, root / "maps", "test", tmp_path, tokens=tokens, workers=2)
    assert not report.failed
    assert sorted(report.built) == sorted(tokens)


def test_the_world_does_not_depend_on_the_number_of_processes(tmp_path):
    for name, workers in (("one", 1), ("two", 2)):
        write_download(tmp_path / name, {"train": 12}, two_stage=0, missing=0.1, width=96, seed=3, workers=workers)
    trees = [
        {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "one", tmp_path / "two")
    ]
    assert trees[0] == trees[1]
