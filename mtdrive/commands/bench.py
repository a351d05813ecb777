"""`mtdrive bench`: how long caching and scoring take on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from mtdrive.settings.evaluation import BenchSettings
from mtdrive.simulation.installation.timing import (
    GROUPS,
    SceneTimes,
    Spread,
    evenly,
    time_build,
    time_scene,
    varied_plans,
)
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.terminal import terminal


def run(config: BenchSettings) -> int:
    """Measure and print."""
    store = config.open_store()
    tokens = evenly(store.tokens, config.scenes)
    measured = [measure(store, token, config.metric) for token in (tokens[0], *tokens)][1:]  # the first one compiles
    roots = (config.data_root, config.maps_root, config.scene_filter)
    log_names = {store.log_name(token) for token in tokens}
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first", "second"):  # the first one reads the maps and compiles the kernels
            build = time_build(*roots, Path(folder) / name, tokens, log_names)
    title = f"{config.metric} on {store.title(len(tokens))}, one process"
    terminal().print(as_table(title, measured, build))
    return 0


def measure(store: SceneStore, token: str, metric: str) -> SceneTimes:
    """Times of one scene."""
    return time_scene(store, token, varied_plans(store.load(token), max(GROUPS)), metric)


def as_table(title: str, measured: Sequence[SceneTimes], build: float) -> Table:
    """Medians over the scenes."""
    table = Table("", "ms (10th to 90th percentile)", title=title, title_justify="left")
    table.add_row("compile a scene (mean)", f"{build * 1e3:.3f}")
    rows = {
        "load a scene": [times.load for times in measured],
        "prepare a scene": [times.prepare for times in measured],
        **{f"a trajectory, {size} at once": [times.score[size] / size for times in measured] for size in GROUPS},
    }
    for name, seconds in rows.items():
        spread = Spread.of(np.array(seconds) * 1e3)
        table.add_row(name, f"{spread.median:.3f} ({spread.low:.3f} to {spread.high:.3f})")
    return table
