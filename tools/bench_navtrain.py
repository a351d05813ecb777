"""What a job of navtrain's size costs, from measured parts of it.

    python tools/bench_navtrain.py work
    python tools/bench_navtrain.py work --scenes 50 100 200

Writes a world of that many scenes into `work` first, if there is none (tools/download_world.py). For each number of
scenes `mtdrive cache`, `mtdrive record` and the data path of `mtdrive rl` (opening the store, loading scenes and
pictures, prompts, and assessing plans; no model) run in processes of their own, whose peak memory is taken together.
What a scene costs is the slope between the numbers. Then a store of 103,288 scenes is opened; only its index is there.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from download_world import FILTERS, NAVTRAIN, write_download
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

STEPS = 20  # of rl; the first is left out of the mean
LOGS = 1_192  # of navtrain


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
    show(rows, given.workers)
    seconds, scenes = open_large_store(given.work)
    print(f"A store of {scenes:,} scenes opens in {seconds:.2f} s.")


def measure(work: Path, count: int, workers: int) -> dict[str, tuple[float, float]]:
    """Verb -> seconds and peak memory [GiB] for so many scenes; `rl` per step."""
    name = f"navtrain_{count}"
    filters = work / "filters" / FILTERS.relative_to("devkit")
    chosen = read_filter("navtrain", work / "world" / "devkit")
    tokens = [scene for scene in chosen.tokens][:count]
    write_filter(filters, FilterFile(name, "trainval", sorted(chosen.log_names), tokens))
    folder = work / name
    scenes = [f"train_test_split={filters / 'train_test_split' / name}.yaml", f"navsim_exp_root={folder}"]
    verbs = {
        "cache": ["-m", "mtdrive.cli", "cache", *scenes, f"workers={workers}"],
        "record": ["-m", "mtdrive.cli", "record", *scenes, "recipe=navtrain", f"out={folder / 'dataset'}",
                   f"workers={workers}"],
        "rl": [__file__, str(folder), "--steps", *scenes, f"scoring_workers={workers}"],
    }  # fmt: skip
    folder.mkdir(exist_ok=True)
    measured = {}
    for verb, arguments in verbs.items():
        log = folder / f"{verb}.log"
        ended = run_logged([sys.executable, *arguments], log, None, lambda line: None)
        if ended.exit_status:
            sys.exit(f"{verb} of {count} scenes failed; see {log}.")
        measured[verb] = (ended.seconds, ended.peak_memory / 2**30)
    steps = json.loads((folder / "steps.json").read_text())
    measured["rl"] = (float(np.mean(steps[1:])), measured["rl"][1])
    return measured


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


def show(rows: dict[int, dict[str, tuple[float, float]]], workers: int) -> None:
    """Print a table of what was measured and what follows for navtrain."""
    table = Table("", *(f"{count:,} scenes" for count in rows), f"navtrain, {workers} processes")
    counts = list(rows)
    for verb in rows[counts[0]]:
        cells = [f"{rows[count][verb][0]:.2f} s, {rows[count][verb][1]:.2f} GiB" for count in counts]
        if verb == "rl":
            table.add_row("rl, a step", *cells, cells[-1])
            continue
        slope, start = np.polyfit(counts, [rows[count][verb][0] for count in counts], 1)
        table.add_row(verb, *cells, f"{(start + slope * NAVTRAIN) / 3600:.1f} h ({slope * 1000:.0f} ms a scene)")
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
