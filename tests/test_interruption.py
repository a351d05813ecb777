"""Ctrl-C and SIGTERM: every process of a run ends, with one sentence, and nothing half written stays."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

STUBBORN = """
import time
from mtdrive.interruption import ended_by_signals
with ended_by_signals("mtdrive test"):
    print("ready", flush=True)
    while True:
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            pass
"""


def start(*arguments: str) -> subprocess.Popen:
    """A Python process that leads a group of its own, as a shell starts one at a terminal."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"},
    )


def await_file(folder: Path, pattern: str, process: subprocess.Popen) -> None:
    """Until the work has begun."""
    while not any(folder.rglob(pattern)):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)


def ended(process: subprocess.Popen) -> list[str]:
    """What a process that has been interrupted said in whole lines; none of its group is left."""
    said = process.communicate(timeout=20)[1]  # returns when the last worker has closed it
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return [line for line in said.splitlines() if line.strip() and "%|" not in line]
        time.sleep(0.05)
    raise AssertionError(f"a worker went on; said: {said}")


@pytest.mark.parametrize(
    ("verb", "begun", "number", "whole_group"),
    [
        ("synth", "navsim_logs/train/*.pkl", signal.SIGINT, True),
        ("cache", "*.scene", signal.SIGTERM, False),
        ("record", "images/*.jpg", signal.SIGINT, False),
        ("evaluate", ".lock", signal.SIGINT, True),  # while torch is imported
    ],
)
def test_an_interrupted_verb_ends_with_its_workers_and_one_sentence(world, tmp_path, verb, begun, number, whole_group):
    arguments = {
        "synth": [f"out={tmp_path}/w", "scenes_train=400", "workers=2"],
        "cache": [*world.overrides(), f"navsim_exp_root={tmp_path}", "split=train", "workers=2"],
        "record": [*world.overrides(), f"out={tmp_path}/ds", "split=train", "workers=1"],
        "evaluate": [*world.overrides(), f"out={tmp_path}/ev", "split=test", "planner=tiny"],
    }
    process = start("-m", "mtdrive.cli", verb, *arguments[verb])
    await_file(tmp_path, begun, process)
    (os.killpg if whole_group else os.kill)(process.pid, number)
    assert ended(process) == [f"mtdrive {verb}: interrupted; run the same command again."]
    assert process.returncode == 128 + number
    assert not [path for path in tmp_path.rglob("*") if path.name.endswith((".tmp", ".partial"))]


@pytest.mark.parametrize("signals", [1, 2])
def test_code_that_swallows_the_interruption_is_not_waited_for(signals):
    process = start("-c", STUBBORN)
    assert process.stdout.readline() == "ready\n"
    for _ in range(signals):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    assert ended(process) == ["mtdrive test: interrupted; run the same command again."]
    assert process.returncode == 130
