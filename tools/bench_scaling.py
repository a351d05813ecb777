"""How the cost of our scoring grows; `python tools/bench_scoring.py --scaling ...` runs it."""

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from tqdm import tqdm

from mtdrive.simulation.geometry.polygons import pack, unpack
from mtdrive.simulation.installation.timing import Spread, clocked, evenly, time_build, time_group, varied_plans
from mtdrive.simulation.scene import DrivableMap, Observation, Scene
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import LOG_REPLAY, prepare
from mtdrive.simulation.submission.files import Submission
from mtdrive.simulation.submission.scoring import score_submission

GROUPS = (1, 8, 64, 512)
GROUP = 64  # trajectories, where agents or polygons vary
FACTORS = (1, 2, 4, 8, 16)
SCENES = 20
NAVTEST = 12_146  # scenes
PER_SCENE = 1024  # trajectories, where cores vary: enough that starting a process is a small part


def measure(console: Console, store: SceneStore, metric: str, roots: tuple[Path, Path, str], folder: Path) -> dict:
    """All measurements of this module, printed and returned.

    Args:
        console: where the tables go.
        store: of the split.
        metric: name of the score version.
        roots: OPENSCENE_DATA_ROOT, NUPLAN_MAPS_ROOT and the split.
        folder: for caches.
    """
    tokens = evenly(store.tokens, SCENES)
    scenes = [store.load(token) for token in tqdm(tokens, desc="scenes")]
    crowded = max(scenes, key=lambda scene: len(scene.observations[metric].tokens))
    wide = max(scenes, key=lambda scene: len(scene.drivable_map.layer))
    measured = {
        "group size": {size: [cost(scene, metric, size) for scene in scenes] for size in GROUPS},
        "agents": by_factor([(agents(crowded, metric), with_agents(crowded, metric, f)) for f in FACTORS], metric),
        "map polygons": by_factor([(polygons(wide), with_polygons(wide, f)) for f in FACTORS], metric),
        "whole split": whole_split(store, metric, roots[2], folder),
        "cores": by_cores(store, metric, roots, folder),
    }
    show(console, measured, metric)
    return measured


def cost(scene: Scene, metric: str, size: int) -> float:
    """Seconds per trajectory in a group, of a prepared scene."""
    prepare(scene, metric, LOG_REPLAY)
    return time_group(scene, varied_plans(scene, size), size, metric) / size


def by_factor(scenes: list[tuple[int, Scene]], metric: str) -> dict[int, dict[str, float]]:
    """By the number of agents or polygons: seconds to prepare a scene, and per trajectory in a group."""
    return {
        count * factor: {"prepare": clocked(prepare, scene, metric, LOG_REPLAY), "score": cost(scene, metric, GROUP)}
        for factor, (count, scene) in zip(FACTORS, scenes, strict=True)
    }


def agents(scene: Scene, metric: str) -> int:
    """How many tracks the scene has."""
    return len(scene.observations[metric].tokens)


def polygons(scene: Scene) -> int:
    """How many map polygons the scene has."""
    return len(scene.drivable_map.layer)


def with_agents(scene: Scene, metric: str, factor: int) -> Scene:
    """The scene with each track `factor` times, all as near to the ego as the first."""
    old = scene.observations[metric]
    rows = np.tile(np.arange(len(old.tokens)), factor)
    by_track = {name: getattr(old, name)[rows] for name in ("tokens", "kind", "size", "first_heading", "first_speed")}
    observation = Observation(
        **by_track,
        poses=old.poses[:, rows],
        present=old.present[:, rows],
        light_ids=old.light_ids,
        light_polygons=old.light_polygons,
        light_red=old.light_red,
        ignored=old.ignored[rows],
    )
    return replace(scene, observations={**scene.observations, metric: observation})


def with_polygons(scene: Scene, factor: int) -> Scene:
    """The scene with each map polygon `factor` times, all as near to the ego as the first."""
    old = scene.drivable_map
    rows = np.tile(np.arange(len(old.layer)), factor)
    drivable_map = DrivableMap(pack(unpack(old.polygons)[rows]), old.layer[rows], old.ids[rows], old.on_route[rows])
    return replace(scene, drivable_map=drivable_map)


def by_cores(store: SceneStore, metric: str, roots: tuple[Path, Path, str], folder: Path) -> dict[int, dict]:
    """By the number of processes: seconds to compile the split, and to score PER_SCENE trajectories in every scene."""
    random = np.random.default_rng(0)
    human = np.repeat(human_plans(store), PER_SCENE, axis=0)
    submission = Submission(np.repeat(store.tokens, PER_SCENE), human + random.normal(scale=0.5, size=human.shape), 0.5)
    times = {}
    for workers in range(1, len(os.sched_getaffinity(0)) + 1):
        build = time_build(*roots, folder / f"by_{workers}", workers=workers)
        times[workers] = {
            "build": build * len(store.tokens),
            "score": clocked(score, submission, metric, roots[2], folder, workers),
        }
    return times


def score(submission: Submission, metric: str, split: str, folder: Path, workers: int) -> None:
    """Score a submission on the caches in a folder."""
    score_submission(submission, folder / "scene_cache", split, metric, workers=workers)


def human_plans(store: SceneStore) -> np.ndarray:
    """(scenes, 8, 3): the recorded human of each."""
    return np.stack([store.load(token).human_poses[:8] for token in store.tokens])


def whole_split(store: SceneStore, metric: str, split: str, folder: Path) -> dict[str, float]:
    """Score the recorded human of every scene in this process, again and again until it is NAVTEST scenes."""
    poses = human_plans(store)
    submission = Submission(np.array(store.tokens), poses, 0.5)
    passes = -(-NAVTEST // len(poses))
    memory = [resident()]
    started = time.perf_counter()
    for _ in range(passes):
        score(submission, metric, split, folder, 1)
        memory.append(resident())
    return {
        "scenes": len(poses),
        "scored": passes * len(poses),
        "seconds": time.perf_counter() - started,
        "memory": memory,
    }


def resident() -> float:
    """Memory of this process [MiB]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def show(console: Console, measured: dict, metric: str) -> None:
    """Print the tables; spreads are medians with 10th and 90th percentile."""
    table = Table("trajectories at once", "us per trajectory", title=f"{metric}, {SCENES} scenes", title_justify="left")
    for size, seconds in measured["group size"].items():
        spread = Spread.of(np.array(seconds) * 1e6)
        table.add_row(str(size), f"{spread.median:.0f} ({spread.low:.0f} to {spread.high:.0f})")
    console.print(table)
    for name in ("agents", "map polygons"):
        table = Table(name, f"us per trajectory, {GROUP} at once", "us per scene to prepare", title_justify="left")
        for count, seconds in measured[name].items():
            table.add_row(str(count), f"{seconds['score'] * 1e6:.0f}", f"{seconds['prepare'] * 1e6:.0f}")
        console.print(table)
    whole = measured["whole split"]
    columns = ("processes", "s to compile", f"s to score, {PER_SCENE} in each scene")
    table = Table(*columns, title=f"{whole['scenes']} scenes", title_justify="left")
    for workers, seconds in measured["cores"].items():
        table.add_row(str(workers), f"{seconds['build']:.1f}", f"{seconds['score']:.1f}")
    console.print(table)
    memory = whole["memory"]
    console.print(
        f"{whole['scored']} scenes scored, one trajectory each, in {whole['seconds']:.1f} s by one process: {NAVTEST} "
        f"take {whole['seconds'] / whole['scored'] * NAVTEST:.1f} s. Memory: {memory[0]:.0f} MiB at the start, "
        f"{memory[len(memory) // 2]:.0f} in the middle, {memory[-1]:.0f} at the end."
    )
