"""Scenes whose front image is missing or damaged are left out, counted and named, up to a share."""

import json
import shutil

import pandas as pd
import pytest

from mtdrive import cli
from mtdrive.commands.rl import scenes_with_images
from mtdrive.datasets.reader import load_samples, read_manifest
from mtdrive.settings.compose import load_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import image_path
from mtdrive.simulation.scene_cache.store import SceneStore


@pytest.fixture
def download(world, tmp_path):
    """A world of which one training scene lacks its image and one test scene's image is cut off; both tokens."""
    shutil.copytree(world.data_root / "sensor_blobs", tmp_path / "sensor_blobs")
    (tmp_path / "navsim_logs").symlink_to(world.data_root / "navsim_logs")
    shutil.copytree(world.exp_root / "scene_cache", tmp_path / "exp/scene_cache")
    tokens = []
    for split in ("train", "test"):
        store = SceneStore(tmp_path / "exp/scene_cache", split)
        tokens.append(store.tokens[1])
        image = image_path(tmp_path, split, store.load(tokens[-1]).camera.image)
        if split == "train":
            image.unlink()
        else:
            image.write_bytes(image.read_bytes()[:-200])
    return tokens


@pytest.fixture
def keys(tmp_path, download):
    return [f"openscene_data_root={tmp_path}", f"navsim_exp_root={tmp_path}/exp", "navsim_devkit_root=null"]


def test_a_recording_goes_on_without_them(keys, download, tmp_path, capsys, caplog):
    lacking = download[0]
    arguments = ["record", *keys, "recipe=navtrain", f"out={tmp_path}/dataset", "workers=1"]
    assert cli.main(arguments) == 0
    assert "1 of 8 scenes left out" in " ".join(capsys.readouterr().out.split())
    assert f"1 of 8 scenes have no front image that reads. {lacking}: There is no camera image" in caplog.text
    assert read_manifest(tmp_path / "dataset")["scenes_without_image"] == [lacking]
    recorded = set(load_samples(tmp_path / "dataset")["token"])
    assert recorded
    assert lacking not in recorded
    assert cli.main([*arguments[:-2], f"out={tmp_path}/other", "max_missing_images=0.1"]) == 2
    told = capsys.readouterr().err
    assert "1 of 8 scenes" in told
    assert lacking in told
    assert "max_missing_images=0.1" in told


def test_training_takes_other_scenes_in_the_same_order(keys, download, tmp_path):
    needed = [*keys, "planner.model=unused", f"out={tmp_path}/rl", "max_steps=3", "scenes_per_step=8"]
    store = SceneStore(tmp_path / "exp/scene_cache", "train")
    order = scenes_with_images(load_settings("rl", needed), store)
    assert len(order) >= 3 * 8
    assert set(order) == set(store.tokens) - {download[0]}
    longer = scenes_with_images(load_settings("rl", [*needed, "max_steps=6"]), store)
    assert longer[: len(order)] == order
    with pytest.raises(MTDriveError, match="max_missing_images=0 allows fewer"):
        scenes_with_images(load_settings("rl", [*needed, "max_missing_images=0"]), store)


def test_an_evaluation_says_which_it_left_out(keys, download, tmp_path, capsys):
    arguments = ["evaluate", *keys, "planner=tiny", "turns=1", "baselines=[human]", "resamples=10", f"out={tmp_path}/e"]
    assert cli.main([*arguments, "max_missing_images=0.5"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "3 scenes out of its windows" in shown
    assert "left out for want of an image: 1 scenes" in shown
    said = json.loads((tmp_path / "e/summary.json").read_text())["provenance"]
    assert said["scenes_without_image"] == [download[1]]
    table = pd.read_csv(tmp_path / "e/scores.csv")
    assert len(table) == 2 * 3  # the baselines drive the same scenes
    assert download[1] not in set(table["token"])
    assert cli.main(arguments) == 2
    assert "truncated or damaged" in capsys.readouterr().err
