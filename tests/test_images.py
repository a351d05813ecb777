"""How often an image is decoded, processed, encoded and sent; what is shared, and what is left behind."""

import multiprocessing
import os
import pickle
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from mtdrive.commands import rl
from mtdrive.planner.answer import Parsed
from mtdrive.planner.image_inputs import ImageInputs
from mtdrive.planner.models import load_planner
from mtdrive.planner.run_folder import RunFolder
from mtdrive.settings import load_settings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.worker_pool import open_assessor
from mtdrive.simulation.navsim_format.images import decode_image
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.training.advantages import estimator
from mtdrive.training.arguments import grpo_arguments
from mtdrive.training.mtgrpo_trainer import MTGRPOSettings, MTGRPOTrainer, scene_order
from support.planners import tiny_config

SCENES, GROUP, TURNS, STEPS = 3, 4, 3, 2


@pytest.fixture
def planner():
    return replace(load_planner(tiny_config()), max_new_tokens=8)


@pytest.fixture
def memory(tmp_path):
    """Stands in for the machine's shared memory."""
    folder = tmp_path / "memory"
    folder.mkdir()
    return folder


def image(seed: int, width: int = 160) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (90, width, 3), dtype=np.uint8)


def files(folder) -> list:
    return [path for path in folder.rglob("*.safetensors") if path.is_file()]


class Counter:
    """Calls a function and keeps what each call was given."""

    def __init__(self, monkeypatch, owner, name: str):
        self.calls, function = [], getattr(owner, name)

        def counted(*args, **kwargs):
            self.calls.append(args)
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)


def locks() -> set[Path]:
    """Of the folders in shared memory that this process is in."""
    opened = {Path(os.path.realpath(link)) for link in Path("/proc/self/fd").iterdir()}
    return {path for path in opened if path.name == "lock" and path.parents[1] == foreseen(path.parents[2])}


def speed_by_letters(text: str) -> Parsed:
    """Random weights write no plan; take the number of letters for a speed."""
    return Parsed(float(sum(map(str.isalpha, text))) * np.arange(1, 9)[:, None] * [0.25, 0.0, 0.0], None)


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_training_step_does_with_images(planner, world, tmp_path, monkeypatch, workers):
    """Two steps over the same scenes: decoded and processed once in all; encoded once a step in generation and once in
    the loss, whatever the group and the turns; nothing of an image is sent to a process."""
    planner = replace(planner, parse_answer=speed_by_letters)
    decoded = Counter(monkeypatch, cv2, "imdecode")
    processed = Counter(monkeypatch, type(planner.processor.image_processor), "preprocess")
    sent = Counter(monkeypatch, Connection, "send")
    encoded = Counter(monkeypatch, planner.model.model.visual, "forward")

    keys = {"planner.model": "any", "out": tmp_path / "out", "scoring_workers": workers, "max_steps": STEPS}
    keys |= {"scenes_per_step": SCENES, "group_size": GROUP, "turns": TURNS}
    config = load_settings("rl", [*world.overrides(), *(f"{key}={value}" for key, value in keys.items())])
    store = SceneStore(world.exp_root / "scene_cache", config.scene_filter.scene_set.store)
    scorer = partial(assess, metric=config.metric, source=config.feedback)
    before = locks()
    with rl.open_tasks(config, planner, store) as (load, _), open_assessor(scorer, store, workers) as assessor:
        [lock] = locks() - before
        trainer = MTGRPOTrainer(
            planner,
            grpo_arguments(config, passes=1, on_cpu=True),
            MTGRPOSettings(turns=TURNS, estimator=estimator(config.estimator)),
            scene_order(store.tokens[:SCENES], STEPS * SCENES, 0),
            load,
            assessor,
        )
        trainer.train()
        patches = len(load(store.tokens[0]).prompt.images["pixel_values"])

    assert len(decoded.calls) == len(processed.calls) == SCENES
    logs = [entry for entry in trainer.state.log_history if "turns" in entry]
    with_advantage = [round(SCENES * (1 - entry["groups_without_gradient"])) for entry in logs]
    assert len(with_advantage) == STEPS
    assert all(with_advantage)
    expected = [count for scenes in with_advantage for count in (SCENES * patches, scenes * patches)]
    assert [len(pixels) for pixels, *_ in encoded.calls] == expected

    submissions = [args[1:] for args in sent.calls]
    assert (len(submissions) > 0) == (workers > 0)
    plans = GROUP * 8 * 3 * 8  # bytes
    assert all(len(pickle.dumps(arguments)) < plans + 500 for arguments in submissions)
    assert not lock.parent.exists()


def look_at(memory, out, paths, barrier, results) -> None:
    """In either process: the images' tensors, and how many were decoded here, which takes long."""
    decode, count = cv2.imdecode, 0

    def slow(*args):
        nonlocal count
        count += 1
        time.sleep(0.05)
        return decode(*args)

    processor = load_planner(tiny_config()).processor
    inputs = ImageInputs(processor, None, out, shared_memory=memory)
    barrier.wait(60)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cv2, "imdecode", slow)
        seen = [inputs[inputs.hash_of(path)]["pixel_values"].numpy().tobytes() for path in paths]
    results.put((count, seen))


def test_two_processes_decode_an_image_once_between_them(memory):
    paths = [memory / f"{index}.png" for index in range(5)]
    for index, path in enumerate(paths):
        cv2.imwrite(str(path), image(index))
    context = multiprocessing.get_context("spawn")
    arguments = (memory, memory / "out", paths, context.Barrier(2), context.Queue())
    other = context.Process(target=look_at, args=arguments)
    other.start()
    look_at(*arguments)
    (one, seen), (two, also_seen) = (arguments[-1].get(timeout=60) for _ in range(2))
    other.join()
    assert one + two == len(paths)
    assert seen == also_seen


def test_what_was_not_used_for_longest_is_forgotten(planner, memory):
    read = []

    def read_image(name: str) -> np.ndarray:
        read.append(name)
        return image(int(name, 16))

    with ImageInputs(planner.processor, read_image, memory / "out", shared_memory=memory) as one:
        size = len(one["0"]["pixel_values"]) * one["0"]["pixel_values"][0].nbytes
    with ImageInputs(planner.processor, read_image, memory / "out", limit=3 * size, shared_memory=memory) as inputs:
        read.clear()
        for name in "0102":
            expected = planner.processor.image_processor(image(int(name)), return_tensors="pt")
            torch.testing.assert_close(inputs[name], dict(expected), atol=0, rtol=0)
        assert read == ["0", "1", "2"]
        assert {path.stem for path in files(memory)} == {"0", "2"}
        for name in "12":
            assert len(inputs[name]["pixel_values"]) == 72
        assert read == ["0", "1", "2", "1"]
    assert not files(memory)


def test_a_run_takes_over_or_removes_what_a_killed_one_left(planner, memory):
    left = ImageInputs(planner.processor, lambda name: image(0), memory / "out", shared_memory=memory)["0"]
    again = ImageInputs(planner.processor, None, memory / "out", shared_memory=memory)["0"]  # nothing is read
    torch.testing.assert_close(left, again, atol=0, rtol=0)
    finer = load_planner(tiny_config(tiny={"image_pixels": 2 * 36288})).processor
    with ImageInputs(finer, lambda name: image(0, 320), memory / "out", shared_memory=memory) as inputs:
        assert not files(memory)
        assert len(inputs["0"]["pixel_values"]) != len(left["pixel_values"])
    assert not files(memory)


@pytest.fixture
def fallback(tmp_path, monkeypatch):
    """Stands in for the temporary folder, which is used where shared memory cannot be."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def victim(tmp_path):
    """A folder of somebody else, in which nothing may change."""
    folder = tmp_path / "victim"
    (folder / "thesis").mkdir(parents=True)
    (folder / "thesis/chapter").write_text("1")
    (folder / "lock").write_text("a")
    yield folder
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))
    assert found == ["lock", "thesis", "thesis/chapter"]
    assert (folder / "lock").read_text() == "a"


def foreseen(memory):
    return memory / f"mtdrive-images-{os.getuid()}"


def open_to_all(memory, victim):
    foreseen(memory).mkdir()
    foreseen(memory).chmod(0o777)


def link(memory, victim):
    foreseen(memory).symlink_to(victim)


def file(memory, victim):
    foreseen(memory).touch()


@pytest.mark.parametrize("attack", [open_to_all, link, file])
def test_a_folder_that_others_have_made_is_left_alone(planner, memory, fallback, victim, attack, caplog):
    attack(memory, victim)
    before = sorted(memory.rglob("*"))
    with ImageInputs(planner.processor, lambda name: image(0), memory / "out", shared_memory=memory) as inputs:
        assert len(inputs["0"]["pixel_values"]) > 0
        [made] = files(fallback)
        assert [path.stat().st_mode & 0o777 for path in made.parents[:2]] == [0o700, 0o700]
    assert str(foreseen(memory)) in caplog.text
    assert sorted(memory.rglob("*")) == before
    assert not files(fallback)


def test_without_a_private_folder_nothing_is_read(planner, memory, monkeypatch):
    """Both places hold a folder that another user has made at the name of this one."""
    monkeypatch.setattr(tempfile, "tempdir", str(memory))
    us = os.getuid()
    monkeypatch.setattr(os, "getuid", lambda: us + 1)
    foreseen(memory).mkdir(mode=0o700)
    with pytest.raises(MTDriveError, match=r"belongs to somebody else.*TMPDIR"):
        ImageInputs(planner.processor, None, memory / "out", shared_memory=memory)
    assert not list(foreseen(memory).iterdir())


def test_links_in_the_folder_are_not_followed(planner, memory, victim):
    first = ImageInputs(planner.processor, lambda name: image(0), memory / "out", shared_memory=memory)
    assert first["0"]
    [made] = files(memory)
    os.symlink(victim, made.parent / "deeper")
    os.symlink(victim, made.parents[1] / "beside")
    del first
    with ImageInputs(planner.processor, lambda name: image(0), memory / "another", shared_memory=memory) as inputs:
        assert not made.exists()  # a dead run's
        assert inputs["0"]
    os.symlink(victim, made.parent)  # at the name of the run that starts
    with pytest.raises(MTDriveError, match="is no folder"):
        ImageInputs(planner.processor, None, memory / "out", shared_memory=memory)


def hold(memory, out, held, ended) -> None:
    """In another process: a run that is killed after a while."""
    inputs = ImageInputs(load_planner(tiny_config()).processor, lambda name: image(0), out, shared_memory=memory)
    assert inputs["0"]
    held.set()
    ended.wait(60)


def test_what_a_killed_run_left_is_removed_by_the_next_and_a_live_run_is_not_touched(planner, memory):
    context = multiprocessing.get_context("spawn")
    held, ended = context.Event(), context.Event()
    other = context.Process(target=hold, args=(memory, memory / "other", held, ended))
    other.start()
    assert held.wait(60)
    [theirs] = files(memory)
    with ImageInputs(planner.processor, lambda name: image(0), memory / "out", shared_memory=memory) as inputs:
        assert inputs["0"]
        assert theirs.exists()
    with ImageInputs(planner.processor, None, memory / "other", shared_memory=memory) as inputs:
        assert inputs["0"]  # theirs: nothing is read
    assert theirs.exists()
    other.kill()
    other.join()
    with ImageInputs(planner.processor, None, memory / "out", shared_memory=memory):
        assert not files(memory)


def test_nobody_loses_a_folder_to_those_who_come_and_go(memory):
    """Locks are held by whoever opens them: threads stand for processes."""

    def stay(number: int) -> None:
        random = np.random.default_rng(number)
        for turn in range(100):
            folder = RunFolder((memory,), "abc"[random.integers(3)])
            mine = folder.path / f"{number}-{turn}"
            mine.touch()
            time.sleep(random.random() * 1e-3)
            assert mine.exists()
            folder.leave()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(stay, range(8)))
    assert not list(foreseen(memory).iterdir())


@pytest.mark.parametrize("damage", [b"", b"\0" * 64, None])
def test_a_file_that_is_cut_or_not_what_its_name_says_is_made_anew(planner, memory, damage):
    front = memory / "front.png"
    cv2.imwrite(str(front), image(0))
    read = {"b": image(1)}
    with ImageInputs(planner.processor, read.__getitem__, memory / "out", shared_memory=memory) as inputs:
        name = inputs.hash_of(front)
        read[name] = decode_image(front)
        expected, other = inputs[name], inputs["b"]
        assert not torch.equal(other["pixel_values"], expected["pixel_values"])
        [known] = memory.rglob("*.hash")
        tensors = known.with_name(f"{name}.safetensors")
        tensors.unlink()  # what is mapped lives on
        tensors.write_bytes(known.with_name("b.safetensors").read_bytes() if damage is None else damage)
        torch.testing.assert_close(inputs[name], expected, atol=0, rtol=0)
        known.write_bytes(damage or b"../../../etc/passwd")
        assert inputs.hash_of(front) == name


@pytest.mark.parametrize("name", ["../x", "/tmp/x", "..", ""])
def test_a_name_that_is_no_hash_becomes_no_path(planner, memory, name):
    with ImageInputs(planner.processor, lambda name: image(0), memory / "out", shared_memory=memory) as inputs:
        with pytest.raises(MTDriveError, match="no content hash"):
            inputs[name]
        assert not list(memory.rglob("*.safetensors"))
