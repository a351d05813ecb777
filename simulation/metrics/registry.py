"""The metrics of each score version. A new metric is one module and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.collisions import NO_AT_FAULT_COLLISIONS
from mtdrive.simulation.metrics.comfort import COMFORT
from mtdrive.simulation.metrics.drivable_area import DRIVABLE_AREA_COMPLIANCE
from mtdrive.simulation.metrics.driving_direction import DRIVING_DIRECTION_COMPLIANCE, driving_direction_compliance
from mtdrive.simulation.metrics.extended_comfort import EXTENDED_COMFORT
from mtdrive.simulation.metrics.history_comfort import HISTORY_COMFORT
from mtdrive.simulation.metrics.lane_keeping import LANE_KEEPING
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.progress import EGO_PROGRESS, normalise_v1, normalise_v2
from mtdrive.simulation.metrics.time_to_collision import LOOK_AHEAD, TIME_TO_COLLISION, time_to_collision
from mtdrive.simulation.metrics.traffic_lights import TRAFFIC_LIGHT_COMPLIANCE
from mtdrive.simulation.scene import NUM_STEPS


@dataclass(frozen=True)
class RecordedTraffic:
    """The traffic of a log that a version scores against."""

    num_future: int
    """Frames after t0, at 2 Hz."""
    red_lights: bool
    """Whether the connectors with a red light are part of it."""
    drop_overlapping: bool
    """Whether tracks that overlap the ego at t0 are ignored."""

    @property
    def num_steps(self) -> int:
        """Steps of the observation at 10 Hz."""
        return 5 * self.num_future + 1


@dataclass(frozen=True)
class ScoreVersion:
    """A score: the product of its factors times the weighted mean of its other metrics."""

    title: str
    """Name in tables and pictures."""
    revision: int
    """Raised when what is compiled for it changes, so that older scene caches are refused."""
    traffic: RecordedTraffic
    """Traffic that scenes are compiled with for it."""
    metrics: tuple[Metric, ...]
    """In the order of navsim's columns."""
    average_row: str
    """What navsim's one-stage script calls the last row of its table."""
    uses_past: bool
    """Whether the recorded past counts."""
    human_filter: bool
    """Whether it has a human penalty filter, on by default: a metric that the recorded human fails counts as 1."""
    reactive: bool
    """Whether it can be scored in reactive traffic."""
    extended_comfort_weight: float = 0.0
    """Weight of two-frame extended comfort in the weighted mean, where it is known; 0 for none."""

    @property
    def has_extended_comfort(self) -> bool:
        """Whether two-frame extended comfort is part of the score."""
        return self.extended_comfort_weight != 0.0


VERSIONS: dict[str, ScoreVersion] = {
    "pdms_v1": ScoreVersion(
        "PDMS",
        1,
        RecordedTraffic(num_future=10, red_lights=False, drop_overlapping=False),
        (
            NO_AT_FAULT_COLLISIONS,
            DRIVABLE_AREA_COMPLIANCE,
            replace(EGO_PROGRESS, weight=5.0, normalise=normalise_v1),
            replace(TIME_TO_COLLISION, weight=5.0),
            replace(COMFORT, weight=2.0),
            replace(
                DRIVING_DIRECTION_COMPLIANCE,
                measure=partial(driving_direction_compliance, exempt_intersections=False),
                weight=0.0,
            ),
        ),
        average_row="average",
        uses_past=False,
        human_filter=False,
        reactive=False,
    ),
    "epdms_v2": ScoreVersion(
        "EPDMS",
        2,
        RecordedTraffic(num_future=8, red_lights=True, drop_overlapping=True),
        (
            NO_AT_FAULT_COLLISIONS,
            DRIVABLE_AREA_COMPLIANCE,
            DRIVING_DIRECTION_COMPLIANCE,
            TRAFFIC_LIGHT_COMPLIANCE,
            replace(EGO_PROGRESS, weight=5.0, normalise=normalise_v2),
            replace(
                TIME_TO_COLLISION,
                measure=partial(time_to_collision, num_steps=NUM_STEPS - LOOK_AHEAD),
                weight=5.0,
            ),
            replace(LANE_KEEPING, weight=2.0),
            replace(HISTORY_COMFORT, weight=2.0),
        ),
        average_row="average_all_frames",
        uses_past=True,
        human_filter=True,
        reactive=True,
        extended_comfort_weight=2.0,
    ),
}


def score_version(name: str) -> ScoreVersion:
    """A score version by name.

    Raises:
        MTDriveError: there is no such version.
    """
    if name not in VERSIONS:
        raise MTDriveError(f"There is no metric {name!r}; choose from {', '.join(VERSIONS)}.")
    return VERSIONS[name]


def revisions() -> dict[str, int]:
    """The revision of each score version, by name."""
    return {name: version.revision for name, version in VERSIONS.items()}


def final_score(name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) final scores: the product of the factors times the weighted mean of the other metrics.

    Args:
        name: of the score version.
        columns: sub-metrics (N,) by navsim's names. Two-frame extended comfort may be among them; where it is NaN it
            has no weight (navsim v2.2 `compute_final_scores`).

    Raises:
        MTDriveError: there is no such version.
    """
    version = score_version(name)
    weighted = sum(metric.weight * columns[metric.column] for metric in version.metrics if metric.weight)
    weights: float | np.ndarray = sum(metric.weight for metric in version.metrics if metric.weight)
    comfort = columns.get(EXTENDED_COMFORT)
    if comfort is not None:
        known = ~np.isnan(comfort)
        weighted = weighted + version.extended_comfort_weight * np.where(known, comfort, 0.0)
        weights = weights + version.extended_comfort_weight * known
    return product_of_factors(name, columns) * (weighted / weights)


def product_of_factors(name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) products of the factors, which are the metrics without a weight.

    Args:
        name: of the score version.
        columns: sub-metrics (N,) by navsim's names.

    Raises:
        MTDriveError: there is no such version.
    """
    return np.prod([columns[metric.column] for metric in metrics_of(name) if metric.weight is None], axis=0)


def metrics_of(name: str) -> tuple[Metric, ...]:
    """The metrics of a score version, in the order of navsim's columns.

    Raises:
        MTDriveError: there is no such version.
    """
    return score_version(name).metrics


def all_metrics() -> dict[str, Metric]:
    """The metrics of all versions by column. Where versions measure one differently, it is the first version's."""
    found: dict[str, Metric] = {}
    for version in VERSIONS.values():
        for metric in version.metrics:
            found.setdefault(metric.column, metric)
    return found


def short_name(column: str) -> str:
    """The abbreviation of a metric's column; any other column name is returned as it is."""
    metric = all_metrics().get(column)
    return column if metric is None else metric.short
