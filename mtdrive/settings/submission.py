"""Settings of the verb that prepares files for a leaderboard: submit."""

from __future__ import annotations

from typing import Annotated

from pydantic.dataclasses import dataclass

from mtdrive.planner.settings import PlannerSettings
from mtdrive.settings.shared import Paths
from mtdrive.settings.types import STRICT, Count, Name, OneOf, Text
from mtdrive.simulation.errors import MTDriveError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SubmitSettings(Paths):
    """`configs/submit.yaml`"""

    planner: PlannerSettings
    split: Name
    synthetic_scenes: Text | None
    navsim: Annotated[str, OneOf("mtdrive.simulation.submission.pickles:KEYS_OF_VERSION")]
    team_name: Text
    authors: Text
    email: Text
    institution: Text
    country: Text
    batch_size: Count
    out: Text

    def __post_init__(self) -> None:
        """Raises MTDriveError where the data root is not set, or a value has no meaning for another."""
        _ = self.data_root  # is needed
        if self.synthetic_scenes is not None and self.navsim == "v1.1":
            raise MTDriveError(f"navsim={self.navsim} has one stage; leave synthetic_scenes out, or say navsim=v2.2.")
