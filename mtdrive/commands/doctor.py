"""`mtdrive doctor`: is this installation sound, and what is there to work with."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from rich.table import Table
from rich.text import Text

from mtdrive.settings.evaluation import DoctorSettings
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.installation.self_check import check_numerics
from mtdrive.terminal import terminal

PACKAGES = ("numpy", "numba", "scipy", "shapely", "pyproj", "opencv-python-headless", "gymnasium")
TRAINING = ("torch", "transformers", "trl", "accelerate", "datasets", "peft")


def run(config: DoctorSettings) -> int:
    """Print every check with its outcome; 1 if one fails."""
    checks: dict[str, Callable[[], str]] = {
        "linear algebra": linear_algebra,
        "scorer": numerics,
        "openscene_data_root": lambda: data_root(config.openscene_data_root, "navsim_logs"),
        "nuplan_maps_root": lambda: data_root(config.nuplan_maps_root, "nuplan-maps-v1.0.json"),
        "accelerator": accelerator,
    }
    table = Table("check", "outcome", title=f"Python {platform.python_version()} on {platform.machine()}")
    for name in (*PACKAGES, *TRAINING):
        table.add_row(name, installed(name))
    failed = 0
    for name, check in checks.items():
        try:
            table.add_row(name, check())
        except (AssertionError, MTDriveError) as error:
            failed += 1
            table.add_row(name, Text(f"FAILED: {error}", "bold red"))
    terminal().print(table)
    return int(failed > 0)


def installed(package: str) -> str:
    """Version of a package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed: pip install 'mtdrive[train]'" if package in TRAINING else "missing"


def linear_algebra() -> str:
    """NumPy's inverse is one; some old builds return garbage on some processors without a word."""
    matrices = np.random.default_rng(0).normal(size=(64, 12, 12)) + 12.0 * np.eye(12)
    error = np.abs(np.linalg.inv(matrices) @ matrices - np.eye(12)).max()
    assert error < 1e-10, f"numpy.linalg.inv is wrong by {error:.1e} here; install another numpy build"
    return f"inverse exact to {error:.1e}"


def numerics() -> str:
    """The compiled scorer, the same code in plain NumPy, and stored scores agree."""
    return f"compiled, plain and stored scores agree to {check_numerics():.1e}"


def data_root(root: str | None, part: str) -> str:
    """A NAVSIM root that is set must hold what the loader looks for."""
    if root is None:
        return "not set"
    assert (Path(root) / part).exists(), f"{root} has no {part}"
    return os.fspath(root)


def accelerator() -> str:
    """The GPU that training would use."""
    try:
        import torch
    except ImportError:
        return "none (torch is not installed)"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "none: training runs on the CPU"
