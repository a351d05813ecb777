"""How long caching and scoring take: measured, never asserted."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.scene_filter import SceneFilter
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.build import build_caches
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.simulation.scoring import LOG_REPLAY, prepare, score

GROUPS = (1, 8, 64)  # trajectories of a scene that are scored at once
REPETITIONS = 3  # of the scoring of a group, whose median counts


@dataclass(frozen=True)
class Spread:
    """Spread of some measurements."""

    median: float
    """Median."""

    low: float
    """10th percentile."""

    high: float
    """90th percentile."""

    @classmethod
    def of(cls, samples: Sequence[float] | np.ndarray) -> Spread:
        """Of at least one sample."""
        low, median, high = np.percentile(samples, [10, 50, 90])
        return cls(float(median), float(low), float(high))


@dataclass(frozen=True)
class SceneTimes:
    """How long one scene takes [s]."""

    load: float
    """Seconds to load its cache file."""

    prepare: float
    """Seconds to prepare scoring, once per scene and metric."""

    score: dict[int, float]
    """Number of trajectories -> seconds to score them in one call."""


def evenly(items: Sequence, count: int) -> list:
    """At most count items, evenly spaced."""
    rows = np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    return [items[row] for row in rows]


def varied_plans(scene: Scene, count: int) -> np.ndarray:
    """(count, 8, 3) plans to score: the recorded human, slower or faster and drifting to a side; always the same."""
    random = np.random.default_rng(0)
    plans = np.repeat(scene.human_poses[None, :8], count, axis=0)
    plans[..., 0] *= random.uniform(0.3, 1.4, (count, 1))
    plans[..., 1] += random.normal(0.0, 1.5, (count, 1)) * np.linspace(0.0, 1.0, 8) ** 2
    return plans


def clocked(function: Callable[..., object], *arguments: object, **options: object) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    function(*arguments, **options)
    return time.perf_counter() - started


def time_scene(
    store: SceneStore,
    token: str,
    poses: np.ndarray,
    metric: str,
    groups: Sequence[int] = GROUPS,
    human_penalty_filter: bool | None = None,
) -> SceneTimes:
    """Load, prepare and score a scene; poses (N, 8, 3) are repeated where a group is larger than N."""
    started = time.perf_counter()
    scene = store.load(token)
    loaded = time.perf_counter()
    prepare(scene, metric, LOG_REPLAY)
    prepared = time.perf_counter()
    times = {size: time_group(scene, poses, size, metric, human_penalty_filter) for size in groups}
    return SceneTimes(loaded - started, prepared - loaded, times)


def time_group(
    scene: Scene, poses: np.ndarray, size: int, metric: str, human_penalty_filter: bool | None = None
) -> float:
    """Seconds to score `size` trajectories of a prepared scene in one call (median of REPETITIONS)."""
    group = np.resize(poses, (size, *poses.shape[1:]))
    options = {"metric": metric, "human_penalty_filter": human_penalty_filter}
    calls = [clocked(score, scene, group, **options) for _ in range(REPETITIONS)]
    return float(np.median(calls))


def time_build(
    openscene_data_root: Path | str,
    nuplan_maps_root: Path | str,
    scenes: SceneFilter | str,
    cache_root: Path,
    tokens: Collection[str] | None = None,
    log_names: Collection[str] | None = None,
    workers: int = 1,
) -> float:
    """Seconds per scene to compile scenes, as of `build_caches`, into cache_root, which should be empty.

    All is counted: reading logs and maps, compiling, writing.

    Raises:
        MTDriveError: as `build_caches`, or a scene cannot be compiled.
    """
    roots = (openscene_data_root, nuplan_maps_root, scenes, cache_root)
    started = time.perf_counter()
    report = build_caches(*roots, tokens=tokens, log_names=log_names, workers=workers)
    seconds = time.perf_counter() - started
    for token, reason in report.failed.items():
        raise MTDriveError(f"Scene {token} cannot be compiled: {reason}")
    return seconds / len(report.built)
