"""The metrics of each score version. A new metric is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.collisions import no_at_fault_collisions
from mtdrive.simulation.metrics.comfort import comfort
from mtdrive.simulation.metrics.drivable_area import drivable_area_compliance
from mtdrive.simulation.metrics.driving_direction import driving_direction_compliance
from mtdrive.simulation.metrics.extended_comfort import EXTENDED_COMFORT
from mtdrive.simulation.metrics.history_comfort import history_comfort
from mtdrive.simulation.metrics.lane_keeping import lane_keeping
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.motion import Motion
from mtdrive.simulation.metrics.progress import normalise_v1, normalise_v2, progress
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.metrics.time_to_collision import LOOK_AHEAD, time_to_collision
from mtdrive.simulation.metrics.traffic_lights import traffic_light_compliance
from mtdrive.simulation.scene import NUM_STEPS


@dataclass(frozen=True)
class Metric:
    """One sub-metric.

    column: navsim's column name.
    measure: its function of the motion and the surroundings.
    weight: in the weighted mean; None for a factor of the score.
    normalise: (values, products, best earnings) -> values, for a metric relative to PDM-Closed.
    """

    column: str
    measure: Callable[[Motion, Surroundings], Measurement]
    weight: float | None = None
    normalise: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None


@dataclass(frozen=True)
class ScoreVersion:
    """A score: the product of the factors times the weighted mean of the rest.

    metrics: in the order of navsim's columns.
    uses_past: the recorded past counts.
    human_filter: metrics that the recorded human fails can be forgiven, and are by default.
    reactive: can be scored in reactive traffic.
    extended_comfort_weight: of `metrics.extended_comfort` in the weighted mean, where it is known; 0 for none.
    """

    metrics: tuple[Metric, ...]
    uses_past: bool
    human_filter: bool
    reactive: bool
    extended_comfort_weight: float = 0.0


VERSIONS: dict[str, ScoreVersion] = {
    "pdms_v1": ScoreVersion(
        (
            Metric("no_at_fault_collisions", no_at_fault_collisions),
            Metric("drivable_area_compliance", drivable_area_compliance),
            Metric("ego_progress", progress, weight=5.0, normalise=normalise_v1),
            Metric("time_to_collision_within_bound", partial(time_to_collision, num_steps=NUM_STEPS), weight=5.0),
            Metric("comfort", comfort, weight=2.0),
            Metric(
                "driving_direction_compliance",
                partial(driving_direction_compliance, exempt_intersections=False),
                weight=0.0,
            ),
        ),
        uses_past=False,
        human_filter=False,
        reactive=False,
    ),
    "epdms_v2": ScoreVersion(
        (
            Metric("no_at_fault_collisions", no_at_fault_collisions),
            Metric("drivable_area_compliance", drivable_area_compliance),
            Metric(
                "driving_direction_compliance",
                partial(driving_direction_compliance, exempt_intersections=True),
            ),
            Metric("traffic_light_compliance", traffic_light_compliance),
            Metric("ego_progress", progress, weight=5.0, normalise=normalise_v2),
            Metric(
                "time_to_collision_within_bound",
                partial(time_to_collision, num_steps=NUM_STEPS - LOOK_AHEAD),
                weight=5.0,
            ),
            Metric("lane_keeping", lane_keeping, weight=2.0),
            Metric("history_comfort", history_comfort, weight=2.0),
        ),
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


def final_score(name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) scores: the product of the factors times the weighted mean of the rest.

    columns: (N,) each, by navsim's names. Two-frame extended comfort may be among them, and has no weight where it is
    NaN (navsim v2.2 `compute_final_scores`). Raises as `score_version`.
    """
    version = score_version(name)
    weighted = sum(metric.weight * columns[metric.column] for metric in version.metrics if metric.weight)
    weights = sum(metric.weight for metric in version.metrics if metric.weight)
    comfort = columns.get(EXTENDED_COMFORT)
    if comfort is not None:
        known = ~np.isnan(comfort)
        weighted = weighted + version.extended_comfort_weight * np.where(known, comfort, 0.0)
        weights = weights + version.extended_comfort_weight * known
    return product_of_factors(name, columns) * (weighted / weights)


def product_of_factors(name: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """(N,) products of the columns without a weight. Raises as `score_version`."""
    return np.prod([columns[metric.column] for metric in metrics_of(name) if metric.weight is None], axis=0)


def metrics_of(name: str) -> tuple[Metric, ...]:
    """The metrics of a score version, in the order of navsim's columns. Raises as `score_version`."""
    return score_version(name).metrics
