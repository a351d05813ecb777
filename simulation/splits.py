"""Which scenes may be trained on.

An evaluation split stays one under another name: what counts is the folder that a name leads to, and the logs and
scenes in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.names import split_name
from mtdrive.simulation.scene_cache.store import SYNTHETIC, SceneStore

EVALUATION = ("test", "navtest", "navhard", "private_test", "warmup", SYNTHETIC)  # prefixes of split names
HELD_OUT = (*EVALUATION, "val")


def check_held_out(
    cache_root: Path, split: str, data_root: Path | None = None, tokens: Collection[str] | None = None
) -> None:
    """Refuse to train on a split that is for evaluation, or that shares a log or a scene with a held-out split.

    Args:
        cache_root: where the scene caches of all splits are.
        split: to be trained on.
        data_root: where the logs of all splits are, if they are there.
        tokens: the scenes to be trained on; None for all that the split's cache has.

    Raises:
        MTDriveError: the split is for evaluation, or shares a log or a scene with a held-out split; or tokens is None
            and the split has no scene cache.
    """
    roots = [cache_root] if data_root is None else [cache_root, data_root / "navsim_logs"]
    check_training_split(split, roots)
    logs: set[str] = set()
    if tokens is None or (cache_root / split / "index.json").exists():
        store = SceneStore(cache_root, split)
        logs = store.log_names | _recorded_logs(store)
        tokens = store.tokens if tokens is None else tokens
    for other, its_logs, its_tokens in _held_out(roots, split):
        shared = [f"scene {token}" for token in sorted(its_tokens & set(tokens))]
        shared += [f"log {log}" for log in sorted(its_logs & logs)]
        if shared:
            raise MTDriveError(f"Split {split} shares {shared[0]} with {other}; leave it out of one of them.")


def check_training_split(split: str, roots: Collection[Path] = ()) -> None:
    """Refuse an evaluation split by its name, or by the name of the folder that a link of its name leads to.

    Args:
        split: to be trained on.
        roots: folders that hold a folder for each split.

    Raises:
        MTDriveError: the split is for evaluation, or its name is not valid.
    """
    split_name(split)
    for name in (split, *((root / split).resolve().name for root in roots)):
        if _starts_with(name, EVALUATION):
            target = "" if name == split else f" leads to {name}, which"
            raise MTDriveError(f"split={split}{target} is for evaluation alone; name a training split.")


def _recorded_logs(store: SceneStore) -> set[str]:
    """Log names as the frames record them, since a file may have been renamed; one scene of each log is loaded."""
    names = set()
    for token in {store.log_name(token): token for token in store.tokens}.values():
        try:
            names.add(store.load(token).log_name)
        except MTDriveError:  # a damaged cache is reported when the scene is loaded for training
            continue
    return names


def _held_out(roots: Collection[Path], split: str) -> Iterator[tuple[str, set[str], set[str]]]:
    """Name, log names and tokens of every other held-out split, from its scene cache or its folder of logs."""
    for root in roots:
        for folder in sorted(root.glob("*/")):
            if folder.name == split or not _starts_with(folder.name, HELD_OUT):
                continue
            if (folder / "index.json").exists():
                store = SceneStore(root, folder.name)
                yield folder.name, store.log_names, set(store.tokens)
            else:
                yield folder.name, {path.stem for path in folder.glob("*.pkl")}, set()


def _starts_with(name: str, prefixes: tuple[str, ...]) -> bool:
    return name.lower().startswith(prefixes)
