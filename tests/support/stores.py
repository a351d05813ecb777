"""Scene caches of hand-made scenes, and indices of scenes that are not there."""

from collections.abc import Mapping
from pathlib import Path

from mtdrive.simulation.navsim_format.scene_filter import SceneSet
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.format import Fingerprint, save_scene
from mtdrive.simulation.scene_cache.index import Index, LogEntry, write_index

LOG = "hand-made"


def save_store(root: Path, split: str, *scenes: Scene) -> None:
    """Write what `SceneStore(root, split)` reads: the scenes, all of one log."""
    for scene in scenes:
        save_scene(root / split / LOG / f"{scene.token}.scene", scene, Fingerprint("", ""))
    save_index(root, split, {LOG: [scene.token for scene in scenes]})


def save_index(root: Path, split: str, tokens: Mapping[str, list[str]]) -> None:
    """Write an index of all windows of a split that lists these scenes, by log."""
    logs = {log: LogEntry("", listed) for log, listed in tokens.items()}
    write_index(root / split, Index(SceneSet(split, split, None), None, True, logs))
