"""Settings of the verbs that look at plans: score, evaluate, compare, visualize, bench, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from mtdrive.planner.settings import PlannerSettings
from mtdrive.settings.shared import BaselineName, DrafterName, MetricName, Paths, Scenes
from mtdrive.settings.types import (
    STRICT,
    Count,
    CountOrNone,
    Folder,
    NotNegative,
    OneOf,
    Seed,
    Share,
    Text,
    Token,
    Workers,
)
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.feedback.structured import Source

ALL = "all"  # metric=all and turns=all of mtdrive score


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ScoreSettings(Scenes):
    """`configs/score.yaml`"""

    SPLIT = "test"

    trajectories: Text
    turns: Literal["last", "all"]
    out: Text
    metric: MetricName | Literal["all"]
    human_penalty_filter: bool | None
    traffic: Annotated[str, OneOf("mtdrive.simulation.scoring:TRAFFIC")]
    synthetic_scenes: Text | None
    mapping: Text | None
    explain: Token | None
    workers: Workers

    @property
    def mapping_file(self) -> Path | None:
        """Which synthetic scenes follow which frames: `mapping`, else what the filter of the scenes says; None for one
        stage."""
        if self.mapping is not None:
            return Path(self.mapping)
        two_stages = self.synthetic_scenes is not None and self.scene_filter.synthetic_tokens
        return self.scene_filter.file if two_stages else None

    def __post_init__(self) -> None:
        """Raises MTDriveError where a data root is not set, or a value has no meaning for another."""
        from mtdrive.simulation.scoring import LOG_REPLAY, check_traffic, uses_human_filter  # a second

        _ = self.data_root, self.maps_root  # are needed
        if self.metric != ALL:
            uses_human_filter(self.metric, self.human_penalty_filter)
            check_traffic(self.metric, self.traffic)
        elif self.human_penalty_filter is not None:
            raise MTDriveError("metric=all scores with and without the human penalty filter; leave it out.")
        if self.explain is not None and (ALL in (self.metric, self.turns)):
            raise MTDriveError(f"explain={self.explain} tells of one metric and one turn; leave `all` out.")
        if self.explain is not None and self.traffic != LOG_REPLAY:
            raise MTDriveError(f"explain={self.explain} tells of traffic={LOG_REPLAY} alone; leave one of both out.")
        if Path(self.out).suffix != ".csv":
            raise MTDriveError(f"out={self.out} must name a .csv file.")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateSettings(Scenes):
    """`configs/evaluate.yaml`"""

    SPLIT = "test"

    planner: PlannerSettings | None = None
    turns: Count
    feedback: Source
    feedback_steps: bool | None
    temperature: NotNegative
    draft: DrafterName
    batch_size: Count
    baselines: list[BaselineName]
    metric: MetricName
    limit: Count | None
    families: Text | None
    resamples: Count
    seed: Seed
    max_missing_images: Share
    out: Text | None

    @property
    def folder(self) -> Path:
        """Folder of the results."""
        scenes = self.scene_filter.scene_set.store
        return Path(self.navsim_exp_root) / "evaluation" / scenes if self.out is None else Path(self.out)

    def __post_init__(self) -> None:
        """Raises MTDriveError where there is nothing to evaluate, or a planner would get no images."""
        if self.planner is None and not self.baselines:
            raise MTDriveError("There is nothing to evaluate: give planner=... or baselines=[...].")
        if self.planner is not None:
            _ = self.data_root  # is needed


@dataclass(frozen=True, kw_only=True, config=STRICT)
class CompareSettings(Paths):
    """`configs/compare.yaml`"""

    runs: Annotated[list[Folder], Field(min_length=2)]
    allow: list[Text]
    page: CountOrNone
    resamples: Count
    seed: Seed
    out: Text

    def __post_init__(self) -> None:
        """Raises MTDriveError where a page would get no images."""
        if self.page and self.openscene_data_root is None:
            raise MTDriveError(
                "The page of scenes needs their images: openscene_data_root=... or the environment variable "
                "OPENSCENE_DATA_ROOT; or leave it out with page=0."
            )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class VisualizeSettings(Scenes):
    """`configs/visualize.yaml`"""

    SPLIT = "test"

    out: Text
    format: Literal["png", "gif", "mp4", "html"]
    episodes: Text | None
    trajectories: Text | None
    token: Token | list[Token] | None
    limit: Count | None
    references: list[Literal["human", "pdm_closed"]]
    metric: MetricName

    def __post_init__(self) -> None:
        """Raises MTDriveError for two sources of plans at once."""
        if self.episodes is not None and self.trajectories is not None:
            raise MTDriveError("Give episodes=... or trajectories=..., not both.")

    @property
    def shown(self) -> list[str]:
        """The scenes that are named, if any is."""
        named = self.token if isinstance(self.token, list) else [] if self.token is None else [self.token]
        return [*named, *(self.named_tokens or [])]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class BenchSettings(Scenes):
    """`configs/bench.yaml`"""

    SPLIT = "test"

    metric: MetricName
    scenes: Count

    def __post_init__(self) -> None:
        """Raises MTDriveError where a data root is not set."""
        _ = self.data_root, self.maps_root  # are needed


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DoctorSettings(Paths):
    """`configs/doctor.yaml`"""
