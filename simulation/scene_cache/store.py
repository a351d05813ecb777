"""The compiled scenes of a filter or of a data split.

`<cache_root>/<store>/<log>/<token>.scene`, and `index.json` beside the logs, written when a build ends.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.names import log_name as checked_log_name
from mtdrive.simulation.navsim_format.names import scene_token, split_name
from mtdrive.simulation.navsim_format.scene_filter import SceneFilter, SceneSet
from mtdrive.simulation.scene import Scene
from mtdrive.simulation.scene_cache.format import SUFFIX, Fingerprint, load_fingerprint, load_scene
from mtdrive.simulation.scene_cache.index import INDEX, check_same, read_index, tokens_of

SYNTHETIC = "synthetic_scenes"  # the store and the split of second-stage scenes


class SceneStore:
    """The compiled scenes of a filter or of a data split.

    Args:
        cache_root: folder of all stores.
        name: of the store: the filter's, or the data split's.

    Raises:
        MTDriveError: no build of these scenes has ended.
    """

    def __init__(self, cache_root: Path | str, name: str) -> None:
        split_name(name)
        self._folder = Path(cache_root) / name
        index = read_index(self._folder)
        if index is None or not index.logs:
            raise MTDriveError(f"There are no scene caches in {self._folder}; run mtdrive cache split={name}.")
        self._index = index
        self._log_of = tokens_of(index.logs)

    @classmethod
    def of(cls, cache_root: Path | str, scene_filter: SceneFilter, tokens: Collection[str] | None = None) -> SceneStore:
        """The scenes of a filter, or those of them that are named.

        Raises:
            MTDriveError: they have not been compiled, or those in the store are others.
        """
        scenes = scene_filter.scene_set
        key = "split" if scenes.filter is None else "train_test_split"
        if not (Path(cache_root) / scenes.store / INDEX).is_file():
            named = scenes.name if scene_filter.file is None else scene_filter.file
            raise MTDriveError(
                f"There are no scene caches in {Path(cache_root) / scenes.store}; run mtdrive cache {key}={named}."
            )
        store = cls(cache_root, scenes.store)
        check_same(store._folder, store.scene_set, scenes)
        return store if tokens is None else store._only(tokens)

    def _only(self, tokens: Collection[str]) -> SceneStore:
        part = object.__new__(SceneStore)
        part._folder, part._index = self._folder, replace(self._index, complete=False)
        part._log_of = {token: self.log_name(token) for token in dict.fromkeys(tokens)}
        return part

    @property
    def scene_set(self) -> SceneSet:
        """Which scenes they are."""
        return self._index.scene_set

    def title(self, count: int) -> str:
        """What `count` scenes of the store are, for a heading: those of a part never read like the whole."""
        if self._index.listed is not None:
            return f"{self.scene_set}, {count:,} of {self._index.listed:,} scenes"
        if self._index.complete and count == len(self._log_of):
            return f"{self.scene_set}, {count:,} scenes"
        name = self.scene_set.name if self.scene_set.filter is None else str(self.scene_set)
        return f"{name}, {count:,} scenes out of its windows"

    @property
    def tokens(self) -> list[str]:
        """Tokens of all scenes, log by log."""
        return list(self._log_of)

    @property
    def log_names(self) -> set[str]:
        """Logs that the scenes come from."""
        return set(self._log_of.values())

    def log_name(self, token: str) -> str:
        """The log that a scene comes from.

        Raises:
            MTDriveError: the scene has not been compiled.
        """
        try:
            return self._log_of[token]
        except KeyError:
            raise MTDriveError(f"There is no scene {token} in {self._folder}; run mtdrive cache for it.") from None

    def load(self, token: str) -> Scene:
        """One scene; its arrays are read-only.

        Raises:
            MTDriveError: the scene has not been compiled, or its file is damaged, outdated or that of another scene.
        """
        path = scene_path(self._folder, self.log_name(token), token)
        scene = load_scene(path)
        if (scene.token, scene.split) != (token, self.scene_set.data_split):
            raise MTDriveError(
                f"{path} holds scene {scene.token} of split {scene.split}; delete {self._folder} and run mtdrive cache."
            )
        return scene

    def fingerprint(self, token: str) -> Fingerprint:
        """Digests of the log and the map that a scene was compiled from. Raises as `load`."""
        return load_fingerprint(scene_path(self._folder, self.log_name(token), token))


def scene_path(folder: Path, log_name: str, token: str) -> Path:
    """File of a compiled scene in the folder of its store."""
    return folder / checked_log_name(log_name) / f"{scene_token(token)}{SUFFIX}"
