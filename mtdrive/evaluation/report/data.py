"""What a report shows, as plain data: made by `collect`, or by hand in a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from mtdrive.visualization.turns import DrawnTurn

SFT, RL = "SFT", "RL"


@dataclass(frozen=True)
class StageRun:
    """One stage of the run. command: what repeats it. seconds: wall time. peak_memory: [bytes], all its processes."""

    name: str
    command: str
    seconds: float
    peak_memory: int


@dataclass(frozen=True)
class Series:
    """One line of a panel: y over x, equally long; name is its legend entry."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]


@dataclass(frozen=True)
class Panel:
    """One small chart of a training stage. note: one sentence on how to read it."""

    stage: Literal["sft", "rl"]
    title: str
    x_label: str
    series: tuple[Series, ...]
    note: str


@dataclass(frozen=True)
class SceneCard:
    """One test scene of the gallery. reason: why the rule chose it. camera_view, bird_view: encoded JPEG or PNG."""

    token: str
    family: str
    reason: str
    camera_view: bytes
    bird_view: bytes
    turns: tuple[DrawnTurn, ...]


@dataclass(frozen=True)
class ReportData:
    """Everything a report shows.

    facts: provenance, label to value. stages: in the order in which they ran.
    table: one row per policy, feedback source, scene and turn: the columns of `mtdrive.evaluation.rows.as_table`, with
    `policy` "SFT", "RL" or a baseline's name, `feedback` the source ("" for baselines, which get none), and `surprise`
    what the future does to a plan that is good by all that shows at t0 (see `mtdrive.simulation.synthetic`).
    """

    title: str
    facts: Mapping[str, str]
    stages: tuple[StageRun, ...]
    table: pd.DataFrame
    panels: tuple[Panel, ...]
    cards: tuple[SceneCard, ...]
