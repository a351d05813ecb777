"""The metrics of each score version. A new metric is one module and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.collisions import no_at_fault_collisions
from mtdrive.simulation.metrics.comfort import comfort
from mtdrive.simulation.metrics.drivable_area import drivable_area_compliance
from mtdrive.simulation.metrics.driving_direction import driving_direction_compliance
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.motion import Motion
from mtdrive.simulation.metrics.progress import normalise_v1, progress
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.metrics.time_to_collision import time_to_collision
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


METRICS: dict[str, tuple[Metric, ...]] = {
    "pdms_v1": (
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
}


def metrics_of(version: str) -> tuple[Metric, ...]:
    """The metrics of a score version, in the order of navsim's columns.

    Raises:
        MTDriveError: there is no such version.
    """
    if version not in METRICS:
        raise MTDriveError(f"There is no metric {version!r}; choose from {', '.join(METRICS)}.")
    return METRICS[version]
