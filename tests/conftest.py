"""Fixtures that several test modules share: a small synthetic world on disk, made once."""

from __future__ import annotations

import contextlib
import io
import sys
import types
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import pytest
import torch

from mtdrive.cli import main
from mtdrive.commands import cache, synth
from mtdrive.settings import load_settings

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


@pytest.fixture
def foreign_class(monkeypatch):
    """A maker of classes under the names of packages that are not installed here, whose objects are to be pickled.

    An object takes its fields by keyword; slots hold them in place of a dict. An enum's members count from 0.
    """

    def make(
        module: str,
        name: str,
        enum: type[Enum] | None = None,
        members: Sequence[str] = (),
        *,
        slots: Sequence[str] = (),
    ):
        def fill(self, **values: object) -> None:
            for key, value in values.items():
                setattr(self, key, value)

        if enum is not None:
            made = enum(name, {member: index for index, member in enumerate(members)}, module=module)
        else:
            fields = {"__slots__": slots} if slots else {}
            made = type(name, (), {"__module__": module, "__init__": fill, **fields})
        parts = module.split(".")
        for depth in range(1, len(parts) + 1):
            package = ".".join(parts[:depth])
            if package not in sys.modules:
                monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
        setattr(sys.modules[module], name, made)
        return made

    return make


@pytest.fixture(scope="session")
def world(tmp_path_factory) -> World:
    """Eight training and four test scenes with their caches; tests must not write into it."""
    root = tmp_path_factory.mktemp("world")
    made = World(root / "data", root / "data" / "maps", root / "exp")
    sizes = ["scenes_train=8", "scenes_val=2", "scenes_test=4", "workers=1"]
    synth.run(load_settings("synth", [f"out={made.data_root}", *sizes]))
    for split in ("train", "test"):
        assert not cache.run(load_settings("cache", [*made.overrides(), f"split={split}", "workers=1"]))
    return made


@dataclass(frozen=True)
class SmokeRun:
    """A finished `mtdrive quickstart preset=smoke`. arguments: that made it. printed: what it said."""

    folder: Path
    arguments: list[str]
    printed: str


@pytest.fixture(scope="session")
def smoke_run(tmp_path_factory) -> SmokeRun:
    """From nothing to a report, once for all tests; they must not write into it."""
    folder = tmp_path_factory.mktemp("outputs") / "smoke"
    arguments = ["quickstart", "preset=smoke", f"out={folder}"]
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as printed:
        for name in ("OPENSCENE_DATA_ROOT", "NUPLAN_MAPS_ROOT", "NAVSIM_EXP_ROOT"):
            patch.setenv(name, "unset")  # whatever the run sets is taken back
        assert main(arguments) == 0
    return SmokeRun(folder, arguments, printed.getvalue())
