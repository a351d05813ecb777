"""Names from files stay below the folder that they are joined to."""

from __future__ import annotations

import json
import pickle
from dataclasses import asdict

import pytest

from mtdrive.datasets.reader import image_file, load_samples
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format import logs, names
from mtdrive.simulation.navsim_format.images import image_path
from mtdrive.simulation.navsim_format.maps import map_path
from mtdrive.simulation.navsim_format.scene_filter import SceneSet
from mtdrive.simulation.scene_cache.build import build_caches, build_synthetic_caches
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.visualization.records import read_trajectories
from support import reference
from support.stores import save_index

DATA = reference.DATA_ROOT
LOG = "2021.06.11.12.10.21_veh-36_00100_00377"
FORGED = ["", ".", "..", "../a", "/etc/passwd", "a/b", "a\\b", "a\0b", "a\nb", "a b", "~", "-rf", "a" * 129, "C:a", "é"]
FORGED += [None, 7, b"a", ["a"]]
PARTS = [names.scene_token, names.log_name, names.map_part, names.shard_name, names.sample_id]


@pytest.mark.parametrize("check", PARTS, ids=lambda check: check.__name__)
def test_a_name_is_one_plain_part(check):
    for name in (LOG, "5118e69f55dd7a54", "f" * 17, "train-0-00000", "us-ma-boston", "9.12.1817", "part-00000.parquet"):
        assert check(name) == name
    for name in FORGED:
        with pytest.raises(MTDriveError, match=r"is no .*\.$"):
            check(name)


def test_an_image_lies_below_its_split(tmp_path):
    for path in ("../a.jpg", "a/../../b.jpg", "/a.jpg", "a//b.jpg", "a/./b.jpg", "a\\b.jpg", "a\0.jpg", 3):
        with pytest.raises(MTDriveError, match="no camera image"):
            image_path(DATA, "test", path)
    with pytest.raises(MTDriveError, match="no split name"):
        image_path(DATA, "../test", "a.jpg")
    for name in ("../" + "a" * 29, "a" * 31, "A" * 32, None):
        with pytest.raises(MTDriveError, match="no image hash"):
            image_file(tmp_path, name)
    blobs = tmp_path / "data/sensor_blobs"
    blobs.mkdir(parents=True)
    (blobs / "test").symlink_to(DATA / "sensor_blobs/test")  # its owner's word
    picture = next((DATA / "sensor_blobs/test" / LOG / "CAM_F0").iterdir()).name
    assert image_path(tmp_path / "data", "test", f"{LOG}/CAM_F0/{picture}").is_file()


def test_a_log_does_not_write_outside_its_cache(tmp_path):
    folder = tmp_path / "data/navsim_logs/test"
    folder.mkdir(parents=True)
    frames = pickle.loads(logs.log_path(DATA, "test", LOG).read_bytes())[:14]
    frames[3]["token"] = "../../../escaped"
    (folder / f"{LOG}.pkl").write_bytes(pickle.dumps(frames))
    report = build_caches(tmp_path / "data", DATA / "maps", "test", tmp_path / "cache", workers=1)
    assert "no scene token" in report.failed[LOG]
    assert not list(tmp_path.rglob("*escaped*"))
    with pytest.raises(MTDriveError, match="no scene token"):
        build_synthetic_caches(folder, DATA / "maps", tmp_path / "cache", ["../" + "a" * 14])
    with pytest.raises(MTDriveError, match="no map location"):
        map_path(DATA / "maps", "../maps/us-ma-boston")


def test_an_index_does_not_read_outside_its_cache(tmp_path):
    (tmp_path / "cache/test").mkdir(parents=True)
    for log, token in (("..", "a" * 16), (LOG, "../../a")):
        save_index(tmp_path / "cache", "test", {log: [token]})
        with pytest.raises(MTDriveError, match=r"is no (log name|scene token)"):
            SceneStore(tmp_path / "cache", "test").load(token)


def test_a_manifest_does_not_read_outside_its_dataset(tmp_path):
    manifest = {
        "scene_set": asdict(SceneSet("train", "train", None)),
        "wording": "full",
        "samples": 1,
        "metric_version": 1,
    }
    manifest["recipe"] = {"metric": "pdms_v1", "feedback": "privileged", "feedback_steps": False}
    manifest["shards"] = {"../a.parquet": ""}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(MTDriveError, match="no shard name"):
        load_samples(tmp_path)


def test_a_picture_is_not_named_after_a_forged_token(tmp_path):
    columns = [f"{name}_{k}" for k in range(8) for name in ("x", "y", "heading")]
    (tmp_path / "plans.csv").write_text(",".join(["token", *columns]) + "\n" + ",".join(["../a"] + ["0"] * 24) + "\n")
    with pytest.raises(MTDriveError, match="no scene token"):
        read_trajectories(tmp_path / "plans.csv", "test", "pdms_v1")
