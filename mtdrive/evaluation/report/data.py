"""What a report shows, as plain data: made by `collect`, or by hand in a test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from mtdrive.stages.stage import StageRun
from mtdrive.visualization.turns import DrawnTurn

SFT, RL = "SFT", "RL"  # the policies that a run trains


@dataclass(frozen=True)
class Series:
    """One line of a chart."""

    name: str
    """Its entry in the legend."""
    x: tuple[float, ...]
    """Training steps."""
    y: tuple[float, ...]
    """Values, as many as there are steps."""


@dataclass(frozen=True)
class Panel:
    """One small chart of a training stage."""

    stage: Literal["sft", "rl"]
    """The stage whose log it shows."""
    title: str
    """What the values are, with their unit."""
    x_label: str
    """Label of the x axis."""
    series: tuple[Series, ...]
    """Its lines."""
    note: str
    """One sentence on how to read it."""


@dataclass(frozen=True)
class SceneCard:
    """One test scene of the gallery, with the plans of one episode."""

    token: str
    """Token of the scene."""
    family: str
    """Family of the scene; empty if unknown."""
    reason: str
    """Why the gallery's rule chose it."""
    camera_view: bytes
    """The plans in the front image, an encoded JPEG or PNG."""
    bird_view: bytes
    """The plans from above, an encoded JPEG or PNG."""
    turns: tuple[DrawnTurn, ...]
    """The turns of the episode."""


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows."""

    title: str
    """Title of the page."""
    metric: str
    """Name of the score version of all scores."""
    facts: Mapping[str, str]
    """Provenance: values by their labels."""
    stages: tuple[StageRun, ...]
    """The stages of the run, in the order in which they ended."""
    table: pd.DataFrame
    """One row per policy, feedback source, scene and turn, with the columns of `mtdrive.evaluation.rows.as_table`.
    `policy` is SFT, RL or a baseline's name; `feedback` is the source, empty for baselines, which get none; `surprise`
    is what the future does to a plan that is good by all that shows at t0 (see `mtdrive.simulation.synthetic`)."""
    panels: tuple[Panel, ...]
    """Charts of the training logs."""
    cards: tuple[SceneCard, ...]
    """The gallery."""
