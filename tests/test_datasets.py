"""Recording interactions: what they hold, that they are true, and that nothing is lost or doubled."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest

from mtdrive.cli import load_config, main
from mtdrive.commands import record
from mtdrive.datasets import builder
from mtdrive.datasets.interactions import Recipe, interactions
from mtdrive.datasets.plans import plan_along, profile_distances
from mtdrive.datasets.reader import load_image, load_samples
from mtdrive.planner.answer import parse_answer
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import image_hash, read_image
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import score


@pytest.fixture(scope="module")
def recorded(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("recorded") / "train"
    record.run(load_config("record", [*world.overrides(), f"out={out}", "workers=1"]))
    return out


@pytest.fixture(scope="module")
def store(world):
    return SceneStore(world.exp_root / "scene_cache", "train")


def test_profiles_follow_constant_acceleration_and_never_reverse():
    distances = profile_distances(8.0, np.array([1.0, -4.0]), np.array([1.0, -4.0]))
    times = np.arange(1, 9) * 0.5
    np.testing.assert_allclose(distances[0], 8.0 * times + 0.5 * times**2, atol=1e-6)
    assert distances[1, -1] == pytest.approx(8.0, abs=0.05)  # v^2 / 2a, then it stands
    assert (np.diff(distances[1]) >= 0.0).all()


def test_plans_keep_to_their_path():
    quarter = np.linspace(0.0, np.pi / 2, 200)
    path = np.column_stack([20.0 * np.sin(quarter), 20.0 * (1.0 - np.cos(quarter)), quarter])
    plan = plan_along(path, np.linspace(2.0, 30.0, 8)[None])[0]
    np.testing.assert_allclose(np.hypot(plan[:, 0], plan[:, 1] - 20.0), 20.0, atol=1e-2)
    np.testing.assert_allclose(plan[:, 2], np.linspace(2.0, 30.0, 8) / 20.0, atol=1e-2)


def test_every_target_scores_higher_than_the_plans_before_it(store):
    found = 0
    for token in store.tokens:
        scene = store.load(token)
        for sample in interactions(scene, Recipe()):
            plans = np.stack([*(turn.poses for turn in sample.exchanges), sample.target.poses])
            scores = score(scene, plans).score
            assert scores[-1] == pytest.approx(sample.target.score)
            assert (scores[:-1] < scores[-1]).all()
            found += len(sample.exchanges)
    assert found >= 2 * len(store.tokens)


def test_samples_read_back_as_conversations_with_their_images(world, store, recorded):
    samples = load_samples(recorded)
    assert len(set(samples["id"])) == len(samples) == json.loads((recorded / "manifest.json").read_text())["samples"]
    assert len(list((recorded / "images").iterdir())) == len(store.tokens)
    for sample in samples:
        roles = [message["role"] for message in sample["messages"]]
        assert roles == ["user", "assistant"] * sample["turns"]
        parts = [part["type"] for message in sample["messages"] for part in message["content"]]
        assert parts.count("image") == 1
        for message, expected in zip(sample["messages"][1::2], sample["scores"], strict=True):
            plan = parse_answer(message["content"][0]["text"]).poses
            # the text rounds to centimetres, which may tip a metric over its threshold but rarely by much
            assert plan is not None
            assert 0.0 <= expected <= 1.0
        camera = store.load(sample["token"]).camera
        image = read_image(world.data_root, "train", camera.image)
        assert image_hash(image) == sample["image"]
        np.testing.assert_array_equal(load_image(recorded, sample["image"]), image)


def test_a_killed_recording_goes_on_without_loss_or_doubles(world, recorded, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    script = (
        "import sys; from mtdrive.datasets import builder; builder.SCENES_PER_SHARD = 1;"
        "from mtdrive.cli import main; sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, "record", *world.overrides(), f"out={out}", "workers=1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(out.glob("samples/*.parquet")) and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("samples/*.parquet")}
    assert kept
    assert not (out / "manifest.json").exists()

    monkeypatch.setattr(builder, "SCENES_PER_SHARD", 1)
    record.run(load_config("record", [*world.overrides(), f"out={out}", "workers=1"]))
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
    rows = sorted(map(str, load_samples(out).to_list()))
    assert rows == sorted(map(str, load_samples(recorded).to_list()))


def test_bad_input_is_refused_in_a_sentence(world, recorded, tmp_path, capsys):
    assert main(["record", *world.overrides(), "split=navtest", f"out={tmp_path / 'a'}"]) == 2
    assert "evaluation" in capsys.readouterr().err
    assert main(["record", *world.overrides(), f"out={recorded}", "seed=1"]) == 2
    assert "another recording" in capsys.readouterr().err
    with pytest.raises(MTDriveError, match=r"manifest\.json"):
        load_samples(tmp_path)


def test_a_damaged_shard_is_named(recorded, tmp_path):
    broken = tmp_path / "broken"
    (broken / "samples").mkdir(parents=True)
    (broken / "manifest.json").write_text((recorded / "manifest.json").read_text())
    for shard in (recorded / "samples").iterdir():
        (broken / "samples" / shard.name).write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(MTDriveError, match="record again"):
        load_samples(broken)


def test_shards_have_the_declared_schema(recorded):
    for shard in (recorded / "samples").glob("*.parquet"):
        assert pq.read_schema(shard).names == builder.SCHEMA.names
