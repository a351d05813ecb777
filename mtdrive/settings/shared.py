"""Settings that several verbs share. The comments of `configs/*.yaml` say what each key means."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic.dataclasses import dataclass

from mtdrive.settings.types import STRICT, OneOf, Text
from mtdrive.simulation.errors import MTDriveError

MetricName = Annotated[str, OneOf("mtdrive.simulation.metrics.registry:VERSIONS")]
BaselineName = Annotated[str, OneOf("mtdrive.simulation.baselines:BASELINES")]
PromptStyleName = Annotated[str, OneOf("mtdrive.planner.prompt:PROMPTS")]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Paths:
    """`configs/paths.yaml`: where the data is."""

    openscene_data_root: Text | None
    nuplan_maps_root: Text | None
    navsim_exp_root: Text

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

    def _root(self, key: str) -> Path:
        if (root := getattr(self, key)) is None:
            raise MTDriveError(f"Say where the data is: {key}=... or the environment variable {key.upper()}.")
        return Path(root)
