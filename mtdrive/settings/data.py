"""Settings of the verbs that write data: synth, cache, record."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtdrive.datasets.recipe_settings import RecipeSettings
from mtdrive.settings.shared import MetricName, PromptStyleName, Scenes
from mtdrive.settings.types import (
    STRICT,
    Count,
    CountOrNone,
    NotNegative,
    OneOf,
    Processes,
    Seed,
    Share,
    Text,
    Workers,
)
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.structured import Source

FamilyName = Annotated[str, OneOf("mtdrive.simulation.synthetic.families:FAMILIES")]
Pixels = Annotated[int, Field(ge=32, le=8192)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FamilySettings:
    """One scenario family in the mix."""

    weight: NotNegative
    hidden: Share


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SynthSettings:
    """`configs/synth.yaml`"""

    out: Text
    seed: Seed
    scenes_train: CountOrNone
    scenes_val: CountOrNone
    scenes_test: CountOrNone
    images: bool
    adjacent_frames: bool
    history_images: bool
    image_size: tuple[Pixels, Pixels]
    workers: Processes
    close_calls: Share
    families: dict[FamilyName, FamilySettings]

    def __post_init__(self) -> None:
        """Raises MTDriveError for a world without any scene."""
        if not (self.scenes_train or self.scenes_val or self.scenes_test):
            raise MTDriveError("A world needs at least one scene; raise scenes_train, scenes_val or scenes_test.")
        if not any(family.weight for family in self.families.values()):
            raise MTDriveError("families holds no scenario family with a positive weight.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CacheSettings(Scenes):
    """`configs/cache.yaml`"""

    log_names: list[Text] | None
    synthetic_scenes: Text | None
    workers: Workers
    check_images: bool

    def __post_init__(self) -> None:
        """Raises MTDriveError where a data root is not set."""
        _ = self.data_root, self.maps_root, self.scene_filter  # are needed


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RecordSettings(Scenes):
    """`configs/record.yaml`"""

    SPLIT = "train"

    recipe: RecipeSettings
    out: Text
    metric: MetricName
    feedback: Source
    feedback_steps: bool
    prompt: PromptStyleName
    families: Text | None
    answers: Text | None
    check: Count | None
    max_missing_images: Share
    seed: Seed
    workers: Processes
