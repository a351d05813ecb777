"""Fixtures that several test modules share: a small synthetic world on disk, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from mtdrive.cli import load_config
from mtdrive.commands import cache, synth

torch.set_num_threads(1)


@dataclass(frozen=True)
class World:
    """data_root: OPENSCENE_DATA_ROOT. maps_root: NUPLAN_MAPS_ROOT. exp_root: holds scene_cache/<split>."""

    data_root: Path
    maps_root: Path
    exp_root: Path

    def overrides(self) -> list[str]:
        """What tells a verb where this world is."""
        roots = {
            "openscene_data_root": self.data_root,
            "nuplan_maps_root": self.maps_root,
            "navsim_exp_root": self.exp_root,
        }
        return [f"{key}={value}" for key, value in roots.items()]


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """Eight training and four test scenes with their caches; tests must not write into it."""
    root = tmp_path_factory.mktemp("world")
    made = World(root / "data", root / "data" / "maps", root / "exp")
    sizes = ["scenes_train=8", "scenes_val=2", "scenes_test=4", "workers=1"]
    synth.run(load_config("synth", [f"out={made.data_root}", *sizes]))
    for split in ("train", "test"):
        assert not cache.run(load_config("cache", [*made.overrides(), f"split={split}", "workers=1"]))
    return made
