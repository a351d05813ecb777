"""Kill every verb that resumes, at any moment, and compare what comes out in the end with a run that was left alone.

python tools/torture.py --kills 50                  all verbs, two at a time; about half an hour on two cores
python tools/torture.py --kills 50 cache record
python tools/torture.py --kills 5 --seed 1 --work outputs/torture rl

A chain begins with nothing. Its command is started, killed with all its processes (SIGKILL) after some time, started
again, and so on until it ends by itself; its files are then compared with those of the run that was left alone, byte by
byte. The moments are spread evenly over the run's length. What may differ is named in VARIES. No other training should
go on: what lies in shared memory at the end counts as left behind.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.table import Table

from mtdrive.simulation.baselines import INTERVAL, human_plan
from mtdrive.simulation.runtime.files import TEMPORARY
from mtdrive.simulation.runtime.locks import LOCK
from mtdrive.simulation.scene_cache.build import INDEX_LOCK
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.terminal import terminal

SHARED_MEMORY = Path("/dev/shm")
SCENES = 72
STEPS = 150  # of fine-tuning, after which some answers can be read: reinforcement learning has something to learn from
LANES = 2  # verbs at a time
SMALL = ["scenes_val=0", "scenes_test=2", "image_size=[320,180]", "workers=2"]
TIMED = (  # and the size of the file that holds them
    rb'"(train_runtime|train_\w+_per_second|total_flos|step_time|seconds/\w+|seconds|peak_memory|'
    rb'trainer_state\.json)": [-+.\de]+'
)
VARIES = {  # what is not compared, by the end of the path: times, memory, logs, TRL's cards (a question by chance)
    ".json": TIMED,
    ".jsonl": TIMED,
    "report.html": rb"<td>[\d. ]+ (s|min \d+ s|[MG]iB)</td>",
    ".log": rb"(?s).+",
    "README.md": rb"(?s).+",
}


@dataclass(frozen=True)
class Job:
    """A command that works in one folder alone."""

    arguments: Sequence[str]
    """What follows `mtdrive`."""
    reach: float = 1.0
    """Share of its length that kills fall in; a command of many parts is killed several times on its way."""


@dataclass
class Outcome:
    """What the chains of a verb came to."""

    kills: int = 0
    """Processes that were killed."""
    chains: int = 0
    """Chains that were run."""
    lost: int = 0
    """Files that are missing at the end of a chain."""
    doubled: int = 0
    """Files that a run left alone does not make."""
    different: int = 0
    """Files with other content."""
    left_behind: int = 0
    """Temporary files and folders."""
    seconds: float = 0.0
    """Wall time [s]."""

    @property
    def faults(self) -> int:
        """Files of any of the four kinds."""
        return self.lost + self.doubled + self.different + self.left_behind


def jobs(material: Path, run: Path) -> dict[str, Job]:
    """The verbs' commands, those that take longest last."""
    train = ["split=train", "workers=2"]
    few = ["max_steps=4", "save_steps=1"]
    return {
        "synth": Job(["synth", f"out={run}/world", "scenes_train=16", *SMALL]),
        "cache": Job(["cache", f"navsim_exp_root={run}", *train]),
        "record": Job(["record", f"out={run}/dataset", *train]),
        "score": Job(
            ["score", f"trajectories={material}/plans.npz", f"out={run}/scores.csv", f"navsim_exp_root={run}", *train]
        ),
        "sft": Job(
            ["sft", f"dataset={material}/dataset", f"out={run}/sft", "batch_size=2", "logging_steps=1", *few],
        ),
        "rl": Job(
            ["rl", f"planner={material}/sft", f"out={run}/rl", "max_parse_errors=1.0", "scenes_per_step=1",
             "group_size=2", "turns=2", *few],
        ),
        "quickstart": Job(["quickstart", "preset=smoke", f"out={run}/quickstart"], reach=0.3),
    }  # fmt: skip


def start(arguments: Sequence[str], environment: dict[str, str], log: Path) -> subprocess.Popen:
    """A command as the leader of a group of processes."""
    with log.open("w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "mtdrive.cli", *arguments],
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def finish(process: subprocess.Popen, log: Path) -> None:
    """Wait for a command to end well."""
    if process.wait():
        sys.exit(f"{' '.join(process.args[3:])} failed with status {process.returncode}:\n{log.read_text()[-3000:]}")


def killed(process: subprocess.Popen, log: Path, delay: float) -> bool:
    """Kill the group after `delay` [s], unless the command ends before."""
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return True
    finish(process, log)
    return False


def prepare(material: Path, environment: dict[str, str], verbs: Sequence[str], scenes: int) -> None:
    """What the verbs start from: a world, its caches, plans, a dataset and a planner."""
    commands = [["synth", f"out={environment['OPENSCENE_DATA_ROOT']}", f"scenes_train={scenes}", *SMALL]]
    commands += [["cache", "split=train", "workers=2"]]
    if {"sft", "rl"} & set(verbs):
        commands += [["record", "split=train", f"out={material}/dataset", "workers=2"]]
        commands += [
            ["sft", f"dataset={material}/dataset", f"out={material}/sft", f"max_steps={STEPS}", "batch_size=8"]
        ]
    for command in commands:
        finish(start(command, environment, material / "log"), material / "log")
    store = SceneStore(material / "scene_cache", "train")
    poses = np.stack([human_plan(store.load(token)) for token in store.tokens])
    np.savez(material / "plans.npz", token=np.array(store.tokens), poses=poses, interval_length=INTERVAL)


def contents(run: Path) -> dict[str, str]:
    """Digest by relative path of every file that is to be compared."""
    files = {path.relative_to(run).as_posix(): path for path in run.rglob("*") if path.is_file()}
    return {name: digest(path) for name, path in files.items() if path.name not in (LOCK, INDEX_LOCK)}


def digest(path: Path) -> str:
    """Of a file's content, without what may differ."""
    data = path.read_bytes()
    for end, pattern in VARIES.items():
        if path.name.endswith(end):
            data = re.sub(pattern, b"", data)
    return hashlib.sha256(data).hexdigest()


def left_behind(run: Path) -> list[str]:
    """Temporary files and folders."""
    return [path.name for path in run.rglob("*") if TEMPORARY.fullmatch(path.name) or path.name.endswith(".partial")]


def in_shared_memory() -> set[str]:
    """Folders of runs, and semaphores; a user's own empty folder may stay."""
    found = [*SHARED_MEMORY.glob("mtdrive-*/*"), *SHARED_MEMORY.glob("sem.*")]
    return {str(path.relative_to(SHARED_MEMORY)) for path in found}


def torture(
    name: str, job: Job, work: Path, environment: dict[str, str], kills: int, random: np.random.Generator
) -> Outcome:
    """All chains of a verb."""
    run, log, began, outcome = work / name, work / f"{name}.log", time.perf_counter(), Outcome()
    begin = partial(start, job.arguments, environment, log)
    shutil.rmtree(run, ignore_errors=True)
    finish(begin(), log)
    length = time.perf_counter() - began
    whole = contents(run)
    moments = (np.arange(kills) + random.uniform(size=kills)) / kills * length * job.reach
    delays = deque(random.permutation(moments))
    while delays:
        shutil.rmtree(run, ignore_errors=True)
        before = outcome.kills
        while delays and killed(begin(), log, delays[0]):
            delays.popleft()
            outcome.kills += 1
        if not delays:
            finish(begin(), log)
        elif outcome.kills == before:  # even from nothing, it is faster now than when it was timed
            delays[0] *= random.uniform()
        outcome.chains += 1
        compare(name, whole, contents(run), outcome)
        left = left_behind(run)
        outcome.left_behind += len(left)
        report(name, "left behind", left)
    outcome.seconds = time.perf_counter() - began
    return outcome


def compare(name: str, whole: dict[str, str], made: dict[str, str], outcome: Outcome) -> None:
    """Count what a chain has lost, made besides or made otherwise than the run that was left alone."""
    lost, doubled = sorted(whole.keys() - made.keys()), sorted(made.keys() - whole.keys())
    different = sorted(path for path in whole.keys() & made.keys() if whole[path] != made[path])
    for what, paths in {"lost": lost, "doubled": doubled, "different": different}.items():
        setattr(outcome, what, getattr(outcome, what) + len(paths))
        report(name, what, paths)


def report(name: str, what: str, paths: Sequence[str]) -> None:
    """Print the first of the paths, if there are any."""
    if paths:
        print(f"{name}: {what}: {', '.join(paths[:8])}{', ...' if len(paths) > 8 else ''}", file=sys.stderr)


def torment(verbs: Sequence[str], kills: int, seed: int, work: Path, scenes: int = SCENES) -> dict[str, Outcome]:
    """Outcomes by verb."""
    material = work / "material"
    material.mkdir(parents=True, exist_ok=True)
    environment = {
        "OPENSCENE_DATA_ROOT": str(material / "world"),
        "NUPLAN_MAPS_ROOT": str(material / "world" / "maps"),
        "NAVSIM_EXP_ROOT": str(material),
        "HF_HOME": str(work / "hf"),
        "OMP_NUM_THREADS": "1",
    }
    prepare(material, environment, verbs, scenes)

    def one(name: str) -> Outcome:
        random = np.random.default_rng([seed, *name.encode()])
        return torture(name, jobs(material, work / name)[name], work, environment, kills, random)

    with ThreadPoolExecutor(LANES) as lanes:
        outcomes = dict(zip(reversed(verbs), lanes.map(one, reversed(verbs)), strict=True))
    return {name: outcomes[name] for name in verbs}


def as_table(outcomes: dict[str, Outcome]) -> Table:
    """One row a verb."""
    heads = ("kills", "chains", "lost", "doubled", "different", "left behind", "seconds")
    table = Table("verb", *heads)
    for name, outcome in outcomes.items():
        values = [getattr(outcome, head.replace(" ", "_")) for head in heads]
        table.add_row(name, *(f"{value:.0f}" for value in values))
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = list(jobs(Path(), Path()))
    parser.add_argument("verbs", nargs="*", metavar="verb", help=f"of {', '.join(names)}; all without any")
    parser.add_argument("--kills", type=int, default=50, help="of each verb")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--work", type=Path, help="an empty folder to work in, which stays")
    arguments = parser.parse_args()
    if unknown := set(arguments.verbs) - set(names):
        parser.error(f"there is no {', '.join(sorted(unknown))} to torture; choose from {', '.join(names)}")
    shared = in_shared_memory()
    with tempfile.TemporaryDirectory() as folder:
        work = (arguments.work or Path(folder)).resolve()
        outcomes = torment(arguments.verbs or names, arguments.kills, arguments.seed, work)
    terminal(100).print(as_table(outcomes))
    shared = sorted(in_shared_memory() - shared)
    report("all", "left behind in shared memory", shared)
    return int(bool(shared) or any(outcome.faults for outcome in outcomes.values()))


if __name__ == "__main__":
    sys.exit(main())
