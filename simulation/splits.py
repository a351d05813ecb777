"""Which scenes may be trained on.

What is for evaluation stays so under another name: what counts is the data split, the folder that its name leads to,
and the logs and scenes themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.scene_filter import SceneSet, known_filters
from mtdrive.simulation.scene_cache.index import read_index, tokens_of
from mtdrive.simulation.scene_cache.store import SYNTHETIC, SceneStore

EVALUATION = ("test", "navtest", "navhard", "navsafe", "private_test", "warmup", SYNTHETIC)  # prefixes of names
HELD_OUT = (*EVALUATION, "val")


def check_held_out(
    cache_root: Path,
    scene_set: SceneSet,
    data_root: Path | None = None,
    tokens: Collection[str] | None = None,
    filters: Collection[Path] = (),
) -> None:
    """Refuse to train on scenes for evaluation, or on those that share a log or a scene with held-out ones.

    Args:
        cache_root: where the scene caches are.
        scene_set: to be trained on.
        data_root: where the logs of all splits are, if they are there.
        tokens: the scenes to be trained on; None for all that are compiled.
        filters: folders of navsim's `train_test_split/*.yaml`.

    Raises:
        MTDriveError: the scenes are for evaluation, or share a log or a scene with held-out ones; or tokens is None
            and there is no scene cache.
    """
    roots = [cache_root] if data_root is None else [cache_root, data_root / "navsim_logs"]
    check_training(scene_set, roots)
    logs: set[str] = set()
    if tokens is None or read_index(cache_root / scene_set.store) is not None:
        store = SceneStore(cache_root, scene_set.store)
        logs = store.log_names | _recorded_logs(store)
        tokens = store.tokens if tokens is None else tokens
    for other, its_logs, its_tokens in _held_out(roots, scene_set, filters):
        shared = [f"scene {token}" for token in sorted(its_tokens & set(tokens))]
        shared += [f"log {log}" for log in sorted(its_logs & logs)]
        if shared:
            raise MTDriveError(f"{scene_set} shares {shared[0]} with {other}; leave it out of one of them.")


def check_training(scene_set: SceneSet, roots: Collection[Path] = ()) -> None:
    """Refuse scenes for evaluation by the name of their filter or split, or of the folder that a link leads to.

    Args:
        scene_set: to be trained on.
        roots: folders that hold a folder for each split or filter.

    Raises:
        MTDriveError: they are for evaluation.
    """
    for name in dict.fromkeys((scene_set.name, scene_set.data_split)):
        for target in (name, *((root / name).resolve().name for root in roots)):
            if _starts_with(target, EVALUATION):
                leads = "" if target == name else f" leads to {target}, which"
                of = "" if name == scene_set.name else f"{scene_set.name} is of split "
                raise MTDriveError(f"{of}{name}{leads} is for evaluation alone; train on other scenes.")


def _recorded_logs(store: SceneStore) -> set[str]:
    """Log names as the frames record them, since a file may have been renamed; one scene of each log is loaded."""
    names = set()
    for token in {store.log_name(token): token for token in store.tokens}.values():
        try:
            names.add(store.load(token).log_name)
        except MTDriveError:  # a damaged cache is reported when the scene is loaded for training
            continue
    return names


def _held_out(
    roots: Collection[Path], scene_set: SceneSet, filters: Collection[Path]
) -> Iterator[tuple[str, set[str], set[str]]]:
    """Name, log names and tokens of everything that is held out: scene caches, folders of logs, navsim's filters."""
    for root in roots:
        for folder in sorted(root.glob("*/")):
            index, held_out = read_index(folder), _starts_with(folder.name, HELD_OUT)
            if index is not None and folder.name != scene_set.store and (held_out or _is_held_out(index.scene_set)):
                yield folder.name, set(index.logs), set(tokens_of(index.logs))
            elif index is None and folder.name != scene_set.data_split and held_out:
                yield folder.name, {path.stem for path in folder.glob("*.pkl")}, set()
    for known in known_filters(filters):
        if known.scene_set != scene_set and _is_held_out(known.scene_set):
            yield f"navsim's {known.name}", set(known.log_names or ()), {*(known.tokens or ()), *known.synthetic_tokens}


def _is_held_out(scene_set: SceneSet) -> bool:
    return _starts_with(scene_set.name, HELD_OUT) or _starts_with(scene_set.data_split, HELD_OUT)


def _starts_with(name: str, prefixes: tuple[str, ...]) -> bool:
    return name.lower().startswith(prefixes)
