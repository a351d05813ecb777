"""Settings of the quickstart and its stages."""

from __future__ import annotations

from typing import Any

from pydantic.dataclasses import dataclass

from mtdrive.planner.settings import PlannerSettings
from mtdrive.settings.shared import BaselineName
from mtdrive.settings.types import STRICT, Count, Processes, Seed, Text
from mtdrive.simulation.errors import MTDriveError


@dataclass(frozen=True, kw_only=True, config=STRICT)
class StageSettings:
    """One stage: a verb, its keys, and what it makes."""

    verb: Text
    makes: Text
    keys: dict[str, Any]
    baseline: BaselineName | None = None


@dataclass(frozen=True, kw_only=True, config=STRICT)
class QuickstartSettings:
    """`configs/quickstart.yaml`"""

    out: Text
    seed: Seed
    workers: Processes
    planner: PlannerSettings
    turns: Count
    environment: dict[str, Text]
    stages: dict[str, StageSettings | None]

    def __post_init__(self) -> None:
        """Raises MTDriveError for a planner that is not made on the spot."""
        if self.planner.tiny is None and self.planner.step_flash is None:
            raise MTDriveError(
                f"The quickstart trains a new planner, tiny or step_flash_tiny, and planner={self.planner.name} is "
                "none; train it by mtdrive sft and mtdrive rl."
            )
