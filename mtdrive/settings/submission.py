"""Settings of the verb that prepares files for a leaderboard: submit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic.dataclasses import dataclass

from mtdrive.planner.settings import PlannerSettings
from mtdrive.settings.shared import Scenes
from mtdrive.settings.types import STRICT, Count, OneOf, Share, Text
from mtdrive.simulation.errors import MTDriveError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SubmitSettings(Scenes):
    """`configs/submit.yaml`"""

    SPLIT = "test"

    planner: PlannerSettings
    synthetic_scenes: Text | None
    navsim: Annotated[str, OneOf("mtdrive.simulation.submission.pickles:KEYS_OF_VERSION")]
    team_name: Text
    authors: Text
    email: Text
    institution: Text
    country: Text
    batch_size: Count
    max_missing_images: Share
    out: Text | None

    @property
    def folder(self) -> Path:
        """Folder to write to."""
        scenes = self.scene_filter.scene_set.store
        return Path(self.navsim_exp_root) / "submission" / scenes if self.out is None else Path(self.out)

    def __post_init__(self) -> None:
        """Raises MTDriveError where the data root is not set, or values do not go together."""
        _ = self.data_root  # is needed
        if self.synthetic_scenes is not None and self.navsim == "v1.1":
            raise MTDriveError(f"navsim={self.navsim} has one stage; leave synthetic_scenes out, or say navsim=v2.2.")
        if self.scene_filter.synthetic_tokens and self.navsim != "v1.1" and self.synthetic_scenes is None:
            raise MTDriveError(f"{self.scene_filter.name} has a second stage; say where it is: synthetic_scenes=...")
