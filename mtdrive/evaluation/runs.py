"""A finished run of `mtdrive quickstart`, to look at from a notebook."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.images import read_image
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.store import SceneStore
from mtdrive.visualization.records import Recording, read_evaluation

DEMO, SMOKE = Path("../outputs/quickstart"), Path("../outputs/smoke")  # seen from notebooks/


@dataclass(frozen=True)
class Run:
    """What a quickstart leaves in its folder."""

    folder: Path
    """The folder that was the quickstart's `out`."""

    def scenes(self, split: str = "test") -> SceneStore:
        """The compiled scenes of a split."""
        return SceneStore(self.folder / "scene_cache", split)

    def image(self, scene: Scene) -> np.ndarray:
        """(H, W, 3) uint8 RGB, the scene's front image."""
        return read_image(self.folder / "world", scene.split, scene.camera.image)

    def evaluation(self, name: str = "rl-privileged") -> Recording:
        """The episodes of an evaluation, `<policy>-<feedback source>`."""
        return read_evaluation(self.folder / "evaluation" / name / "episodes.jsonl")


def finished_run(folders: Sequence[Path] = (DEMO, SMOKE)) -> Run:
    """The first of the folders that holds a finished run; without any, a small one is made in the last.

    The small run takes a minute or two and learns nothing: its plans are noise, but everything is there to look at.

    Raises:
        MTDriveError: the small run failed.
    """
    for folder in folders:
        if (folder / "report.html").exists():
            return Run(folder)
    command = [sys.executable, "-m", "mtdrive.cli", "quickstart", "preset=smoke", f"out={folders[-1]}"]
    if subprocess.run(command, check=False).returncode != 0:
        raise MTDriveError(f"The small run in {folders[-1]} failed; its output above says why.")
    return Run(folders[-1])
