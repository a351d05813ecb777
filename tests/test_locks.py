"""Locks: one run in a folder at a time, whichever verb, and none is left by a run that was killed."""

import subprocess
import sys

import pytest

from mtdrive.cli import main
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.runtime.locks import locked, only_run_in

HOLD = """
import sys, time
from pathlib import Path
from mtdrive.simulation.runtime.locks import only_run_in
with only_run_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("verb", "folder", "arguments"),
    [
        ("synth", ".out.partial", ["out={}/out", "scenes_train=1"]),
        ("cache", "scene_cache/train", ["navsim_exp_root={}", "split=train"]),
        ("record", "out", ["out={}/out", "split=train"]),
        ("sft", "out", ["out={}/out", "dataset={}/dataset"]),
        ("rl", "out", ["out={}/out", "planner.model=any"]),
        ("evaluate", "out", ["out={}/out", "split=test"]),
        ("visualize", "out", ["out={}/out", "split=test"]),
        ("quickstart", "out", ["out={}/out", "preset=smoke"]),
    ],
)
def test_the_second_run_in_a_folder_is_refused(world, tmp_path, capsys, monkeypatch, verb, folder, arguments):
    for name in ("OPENSCENE_DATA_ROOT", "NUPLAN_MAPS_ROOT", "NAVSIM_EXP_ROOT"):
        monkeypatch.setenv(name, "unset")  # whatever the quickstart sets is taken back
    roots = [] if verb in ("synth", "quickstart") else world.overrides()
    if verb == "sft":
        assert main(["record", *roots, "split=train", "recipe=synthetic", f"out={tmp_path}/dataset", "workers=1"]) == 0
    with only_run_in(tmp_path / folder):
        before = sorted(tmp_path.rglob("*"))
        assert main([verb, *roots, *(argument.format(tmp_path) for argument in arguments)]) == 2
        assert sorted(tmp_path.rglob("*")) == before
    said = capsys.readouterr().err
    assert f"Another run is at work in {tmp_path / folder} (process " in said


def test_a_lock_ends_with_a_process_that_is_killed(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    with (
        pytest.raises(MTDriveError, match=rf"Another run .* \(process {holder.pid} on "),
        only_run_in(tmp_path / "out"),
    ):
        pass
    holder.kill()
    holder.wait()
    with only_run_in(tmp_path / "out"):
        pass


def test_the_processes_of_one_launch_are_one_run(tmp_path, monkeypatch):
    with only_run_in(tmp_path):
        monkeypatch.setenv("RANK", "1")
        with only_run_in(tmp_path) as lock:
            assert lock is None


def test_a_lock_that_cannot_be_taken_is_a_sentence(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / ".lock").symlink_to(tmp_path / "file")
    with pytest.raises(MTDriveError, match=f"Cannot write to {tmp_path}: "), only_run_in(tmp_path):
        pass
    with pytest.raises(MTDriveError, match="Cannot write to /proc/nowhere: "), only_run_in(tmp_path / "/proc/nowhere"):
        pass
    with pytest.raises(MTDriveError, match="Cannot write to"), locked(tmp_path / "file" / "lock", wait=True):
        pass
