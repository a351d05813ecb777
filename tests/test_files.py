"""Writing: what cannot be written is said before the work or in one sentence, and killed processes leave nothing."""

import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mtdrive.cli import main
from mtdrive.simulation.runtime.files import CannotWrite, atomic_path, check_writable
from mtdrive.simulation.scene_cache.store import SceneStore


def temporaries(folder: Path) -> list[str]:
    return [path.name for path in folder.rglob("*.tmp")]


def test_a_folder_is_swept_of_what_dead_processes_left_and_of_nothing_else(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    (tmp_path / f".a.csv.{dead.pid}@{host}.tmp").touch()
    kept = {f".a.csv.{os.getppid()}@{host}.tmp", f".a.csv.{dead.pid}@elsewhere.tmp", "mine.tmp"}
    for name in kept:
        (tmp_path / name).touch()
    with atomic_path(tmp_path / "a.csv") as path:
        path.write_text("x")
    assert {path.name for path in tmp_path.iterdir()} == {"a.csv", *kept}


def test_what_has_the_place_of_a_file_is_named_before_and_while_it_is_written(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.csv").mkdir()
    for path in (tmp_path / "file" / "a.csv", tmp_path / "folder.csv"):
        with pytest.raises(CannotWrite, match=f"Cannot write {path}: "):
            check_writable(path)
        with pytest.raises(CannotWrite, match=f"Cannot write {path}: "), atomic_path(path) as temporary:
            temporary.write_text("x")
    check_writable(tmp_path / "new" / "a.csv")
    assert not list((tmp_path / "new").iterdir())


def test_errors_of_reading_and_of_ours_pass_through(tmp_path):
    (tmp_path / "source").mkdir()
    with pytest.raises(IsADirectoryError), atomic_path(tmp_path / "a") as temporary:
        temporary.write_bytes((tmp_path / "source").read_bytes())
    with pytest.raises(ZeroDivisionError), atomic_path(tmp_path / "a"):
        1 / 0  # noqa: B018
    assert not temporaries(tmp_path)


def limited() -> None:
    """No file may grow beyond 2 kB, as on a disk that is full."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2048, 2048))


def test_a_full_disk_ends_a_verb_with_one_sentence_that_names_the_file(world, tmp_path):
    command = [*world.overrides(), "split=test", f"navsim_exp_root={tmp_path}", "workers=2"]
    done = subprocess.run(
        [sys.executable, "-m", "mtdrive.cli", "cache", *command], capture_output=True, text=True, preexec_fn=limited
    )
    assert done.returncode == 2
    said = [line for line in done.stderr.splitlines() if line.strip() and "%|" not in line]
    assert len(said) == 1, done.stderr
    assert said[0].startswith(f"mtdrive cache: Cannot write {tmp_path}/scene_cache/")
    assert said[0].endswith("File too large.")
    assert not temporaries(tmp_path)


def test_score_finds_out_before_its_work_that_it_cannot_write(world, tmp_path, capsys):
    store = SceneStore(world.exp_root / "scene_cache", "test")
    token = store.tokens[0]
    np.savez(tmp_path / "t.npz", token=[token], poses=store.load(token).human_poses[None, :8], interval_length=0.5)
    (tmp_path / "s.json").mkdir()
    arguments = [*world.overrides(), f"navsim_exp_root={tmp_path}/exp", "split=test"]
    assert main(["score", *arguments, f"trajectories={tmp_path}/t.npz", f"out={tmp_path}/s.csv"]) == 2
    assert f"Cannot write {tmp_path}/s.json: it is a folder." in capsys.readouterr().err
    assert not (tmp_path / "exp").exists()
