"""The golden data of `data/navsim_reference`: scenes compiled from it, and what official navsim says about them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from mtdrive.simulation.navsim_format import logs
from mtdrive.simulation.navsim_format.maps import load_map, map_path
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.compile import compile_scene

FOLDER = Path(__file__).parents[1] / "data" / "navsim_reference"
DATA_ROOT, MAPS_ROOT = FOLDER / "dataset", FOLDER / "dataset" / "maps"


@lru_cache
def load(name: str) -> dict[str, np.ndarray]:
    """Arrays of an .npz."""
    with np.load(FOLDER / name) as file:
        return dict(file)


@lru_cache
def scores(version: str) -> pd.DataFrame:
    """Official scores, by (token, trajectory)."""
    table = pd.read_csv(FOLDER / f"scores_{version}.csv", dtype={"dbg_comfort_bits": str})
    return table.set_index(["token", "traj"])


@lru_cache
def scenes(split: str = "test", golden: str = "trajectories.npz") -> dict[str, Scene]:
    """Compiled scenes by token, for all tokens of the golden trajectories."""
    tokens = frozenset(load(golden)["token"].tolist())
    compiled = {}
    for name in logs.log_names(DATA_ROOT, split):
        windows = logs.scene_windows(logs.read_log(logs.log_path(DATA_ROOT, split, name)), tokens)
        for token, frames in windows.items():
            road_map = load_map(map_path(MAPS_ROOT, frames[logs.NUM_HISTORY - 1]["map_location"]))
            compiled[token] = compile_scene(frames, road_map, split)
    return compiled


def plans(token: str, num_poses: int) -> tuple[np.ndarray, np.ndarray]:
    """Names (N,) and poses (N, num_poses, 3) of a scene's golden trajectories."""
    golden = load("trajectories.npz")
    rows = (golden["token"] == token) & (golden["num_poses"] == num_poses)
    return golden["name"][rows], golden["poses"][rows][:, :num_poses]
