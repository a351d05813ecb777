"""Which splits may be learned from."""

from __future__ import annotations

from pathlib import Path

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.scene_cache.store import SceneStore

EVALUATION = ("test", "navtest", "navhard", "private_test", "warmup")  # beginnings of their names


def check_training_split(split: str) -> None:
    """Refuse an evaluation split by its name.

    Raises:
        MTDriveError: the split is for evaluation.
    """
    if split.startswith(EVALUATION):
        raise MTDriveError(f"split={split} is for evaluation alone; name a training split.")


def check_held_out(cache_root: Path, split: str) -> None:
    """Refuse a split that shares a log with a held-out split (an evaluation split, or `val`) that has a scene cache.

    Raises:
        MTDriveError: it does; or the split has no scene cache.
    """
    logs = SceneStore(cache_root, split).log_names
    for folder in sorted(path.parent for path in cache_root.glob("*/index.json")):
        other = folder.name
        if other != split and other.startswith((*EVALUATION, "val")):
            shared = logs & SceneStore(cache_root, other).log_names
            if shared:
                raise MTDriveError(f"Split {split} shares log {min(shared)} with {other}; leave it out of one of them.")
