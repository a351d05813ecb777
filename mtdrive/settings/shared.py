"""Settings that several verbs share. The comments of `configs/*.yaml` say what each key means."""

from __future__ import annotations

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic.dataclasses import dataclass

from mtdrive.settings.types import STRICT, Name, OneOf, Text, Token
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.navsim_format.scene_filter import (
    SceneFilter,
    all_windows,
    devkit_filters,
    read_filter,
    read_tokens,
)
from mtdrive.simulation.scene_cache.store import SceneStore

DrafterName = Annotated[str, OneOf("mtdrive.rollout.drafting:DRAFTERS")]
MetricName = Annotated[str, OneOf("mtdrive.simulation.metrics.registry:VERSIONS")]
BaselineName = Annotated[str, OneOf("mtdrive.simulation.baselines:BASELINES")]
PromptStyleName = Annotated[str, OneOf("mtdrive.planner.prompt:PROMPTS")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Paths:
    """`configs/paths.yaml`: where the data is."""

    openscene_data_root: Text | None
    nuplan_maps_root: Text | None
    navsim_exp_root: Text
    navsim_devkit_root: Text | None

    @property
    def cache_root(self) -> Path:
        """Folder of the scene caches."""
        return Path(self.navsim_exp_root) / "scene_cache"

    @property
    def data_root(self) -> Path:
        """`openscene_data_root`. Raises MTDriveError if it is not set."""
        return self._root("openscene_data_root")

    @property
    def maps_root(self) -> Path:
        """`nuplan_maps_root`. Raises MTDriveError if it is not set."""
        return self._root("nuplan_maps_root")

    @property
    def devkit_root(self) -> Path | None:
        """`navsim_devkit_root`, if it is set."""
        return None if self.navsim_devkit_root is None else Path(self.navsim_devkit_root)

    def _root(self, key: str) -> Path:
        if (root := getattr(self, key)) is None:
            raise MTDriveError(f"Say where the data is: {key}=... or the environment variable {key.upper()}.")
        return Path(root)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Scenes(Paths):
    """`configs/scenes.yaml`: which scenes, of all verbs that read some."""

    SPLIT: ClassVar[str | None] = None
    """Data split where none is named."""

    split: Name | None
    train_test_split: Text | None
    tokens: Token | list[Token] | None

    @cached_property
    def scene_filter(self) -> SceneFilter:
        """The filter that is asked for; all windows of the split without one.

        Raises:
            MTDriveError: it does not read, two are given at once, or no scenes are named.
        """
        if self.train_test_split is not None:
            if isinstance(self.tokens, str):
                raise MTDriveError("Give train_test_split=... or a file of tokens=..., not both.")
            return read_filter(self.train_test_split, self.devkit_root, self.split)
        split = self.split or self.SPLIT
        if split is None:
            raise MTDriveError("Say which scenes: split=... or train_test_split=...")
        return read_tokens(Path(self.tokens), split) if isinstance(self.tokens, str) else all_windows(split)

    @property
    def named_tokens(self) -> list[str] | None:
        """The scenes of the filter that `tokens` lists; None for all."""
        return self.tokens if isinstance(self.tokens, list) else None

    def open_store(self) -> SceneStore:
        """The compiled scenes that are asked for. Raises MTDriveError as `SceneStore.of` and `scene_filter`."""
        return SceneStore.of(self.cache_root, self.scene_filter, self.named_tokens)

    @property
    def filter_folders(self) -> Collection[Path]:
        """Where the filters of navsim are that name scenes for evaluation."""
        folders = [] if self.devkit_root is None else [devkit_filters(self.devkit_root)]
        if self.train_test_split is not None and (file := self.scene_filter.file) is not None:
            folders.append(file.parent)
        return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
