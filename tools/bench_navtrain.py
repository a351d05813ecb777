"""What a job of navtrain's size costs, from measured parts of it.

    python tools/bench_navtrain.py work
    python tools/bench_navtrain.py work --scenes 50 100 200

Writes a world of that many scenes into `work` first, if there is none (tools/download_world.py). For each number of
scenes `mtdrive cache`, `mtdrive record` and the data path of `mtdrive rl` (opening the store, loading scenes and
pictures, prompts, and assessing plans; no model) run in processes of their own, whose peak memory is taken together.
What a scene costs is the slope between the numbers, in processor time. Then a store of 103,288 scenes is opened; only
its index is there.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from download_world import DRIVES_PER_LOG, NAVTRAIN, write_download
from rich.console import Console
from rich.table import Table

from mtdrive.commands.rl import open_tasks, scenes_with_images
from mtdrive.planner.models import load_planner
from mtdrive.settings import load_settings
from mtdrive.simulation.feedback.assessment import assess
from mtdrive.simulation.feedback.worker_pool import open_assessor
from mtdrive.simulation.installation.timing import varied_plans
from mtdrive.simulation.navsim_format.scene_filter import read_filter
from mtdrive.simulation.scene_cache.index import Index, LogEntry, write_index
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.synthetic.filters import FilterFile, write_filter
from mtdrive.simulation.synthetic.logs import token
from mtdrive.stages.process import run_logged

STEPS = 20  # of rl
STEP = "rl step"
LOGS = 1_192  # of navtrain
SCENES_PER_LOG = 2 * DRIVES_PER_LOG  # of the world


@dataclass(frozen=True)
class Cost:
    """What a command took."""

    wall: float
    """Seconds by the clock; of a step, the median."""

    processor: float
    """Seconds of all its processes together, which other work on the machine does not lengthen much."""

    memory: float
    """Peak of all its processes together [GiB]."""

    def __str__(self) -> str:
        return f"{self.wall:.0f} s, {self.processor:.0f} s CPU, {self.memory:.2f} GiB"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for the world and everything that is made of it")
    parser.add_argument("--scenes", type=int, nargs="+", default=[500, 1000, 2000])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", metavar="KEY=VALUE", nargs="+", help=argparse.SUPPRESS)  # the part with rl's keys
    given = parser.parse_args()
    if given.steps:
        data_path(given.work, given.steps)
        return
    world = given.work / "world"
    if not world.exists():
        write_download(world, {"train": max(given.scenes)}, 0, missing=0.1, width=1920, seed=0, workers=given.workers)
    os.environ |= {"OPENSCENE_DATA_ROOT": str(world / "dataset"), "NUPLAN_MAPS_ROOT": str(world / "dataset" / "maps")}
    rows = {count: measure(given.work, count, given.workers) for count in sorted(given.scenes)}
    show(rows)
    seconds, scenes = open_large_store(given.work)
    print(f"A store of {scenes:,} scenes opens in {seconds:.2f} s.")


def measure(work: Path, count: int, workers: int) -> dict[str, Cost]:
    """What each verb costs for so many scenes."""
    name = f"navtrain_{count}"
    filters = work / "filters"
    chosen = read_filter("navtrain", work / "world" / "devkit")
    log_names = (chosen.log_names or ())[: -(-count // SCENES_PER_LOG)]
    write_filter(filters, FilterFile(name, "trainval", log_names, (chosen.tokens or ())[:count]))
    folder = work / name
    folder.mkdir(exist_ok=True)
    scenes = [f"train_test_split={filters / 'train_test_split' / name}.yaml", f"navsim_exp_root={folder}"]
    cli, processes = ["-m", "mtdrive.cli"], f"workers={workers}"
    verbs = {
        "cache": [*cli, "cache", *scenes, processes],
        "record": [*cli, "record", *scenes, "recipe=navtrain", f"out={folder / 'dataset'}", processes],
        STEP: [__file__, str(folder), "--steps", *scenes, f"scoring_workers={workers}"],
    }
    measured = {}
    for verb, arguments in verbs.items():
        log, before = folder / f"{verb.replace(' ', '_')}.log", _processor_seconds()
        ended = run_logged([sys.executable, *arguments], log, None, lambda line: None)
        if ended.exit_status:
            sys.exit(f"{verb} of {count} scenes failed; see {log}.")
        measured[verb] = Cost(ended.seconds, _processor_seconds() - before, ended.peak_memory / 2**30)
        print(f"{count} scenes, {verb}: {measured[verb]}", flush=True)
    steps = json.loads((folder / "steps.json").read_text())
    measured[STEP] = replace(measured[STEP], wall=float(np.median(steps)))
    return measured


def _processor_seconds() -> float:
    """Of all processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def data_path(folder: Path, overrides: list[str]) -> None:
    """Write the seconds of each step of the data path of `mtdrive rl` to `steps.json`."""
    config = load_settings("rl", [*overrides, "planner=tiny", f"out={folder / 'rl'}", f"max_steps={STEPS}"])
    store, planner = config.open_store(), load_planner(config.planner)
    order = scenes_with_images(config, store)
    seconds = []
    with open_tasks(config, planner, store) as (load, _), open_assessor(assess, store, config.scoring_workers) as pool:
        for first in range(0, len(order), config.scenes_per_step):
            started = time.perf_counter()
            tasks = [load(name) for name in order[first : first + config.scenes_per_step]]
            for _ in range(config.turns):
                turn = [pool.submit(task.scene, varied_plans(task.scene, config.group_size)) for task in tasks]
                for future in turn:
                    future.result()
            seconds.append(time.perf_counter() - started)
    (folder / "steps.json").write_text(json.dumps(seconds))


def open_large_store(work: Path) -> tuple[float, int]:
    """Seconds to open a store of navtrain's size, and its number of scenes."""
    chosen = read_filter("navtrain", work / "world" / "devkit")
    tokens = np.array_split([token("navtrain", k) for k in range(NAVTRAIN)], LOGS)
    logs = {f"2021.05.12.19.36.12_veh-35_{k:05d}_00204": LogEntry("0" * 32, t.tolist()) for k, t in enumerate(tokens)}
    folder = work / "large" / chosen.scene_set.store
    folder.mkdir(parents=True, exist_ok=True)
    write_index(folder, Index(chosen.scene_set, NAVTRAIN, True, logs))
    started = time.perf_counter()
    store = SceneStore(work / "large", chosen.scene_set.store)
    return time.perf_counter() - started, len(store.tokens)


def show(rows: dict[int, dict[str, Cost]]) -> None:
    """Print a table of what was measured and what follows for navtrain."""
    table = Table("", *(f"{count:,} scenes" for count in rows), "a scene", "navtrain")
    counts = list(rows)
    for verb in rows[counts[0]]:
        costs = [rows[count][verb] for count in counts]
        if verb == STEP:
            table.add_row(verb, *(f"{cost.wall:.2f} s, {cost.memory:.2f} GiB" for cost in costs), "", "")
            continue
        slope, start = np.polyfit(counts, [cost.processor for cost in costs], 1)
        hours = (start + slope * NAVTRAIN) / 3600
        table.add_row(verb, *map(str, costs), f"{slope * 1000:.0f} ms CPU", f"{hours:.1f} h CPU")
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
