"""Ego progress (EP): the distance along the centerline, relative to PDM-Closed.

The distance is that of the footprint's centre from the first to the last step, at least 0. Its product with the plan's
multiplicative metrics is compared: let best be the larger one of PDM-Closed and the plan (of all proposals, in
PDM-Closed's own scoring). If best is more than 5 m, v1.1 divides the plan's product by best, and v2.2 the plan's
distance, clipped to 1. Otherwise the value is 1; in v1.1, 0 if a multiplicative metric is 0 (navsim
`PDMScorer._calculate_progress`, `_aggregate_scores`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mtdrive.simulation.metrics.geometry import project_on_line
from mtdrive.simulation.metrics.measurement import Measurement
from mtdrive.simulation.metrics.metric import Metric
from mtdrive.simulation.metrics.motion import Motion
from mtdrive.simulation.metrics.surroundings import Surroundings
from mtdrive.simulation.runtime.kernels import kernel
from mtdrive.simulation.scene import STEP, Scene

if TYPE_CHECKING:
    from mtdrive.simulation.scoring import Scores

MIN_BEST = 5.0  # [m]
ENOUGH = 0.95  # of PDM-Closed's progress: from there on feedback does not object
PROGRESS = "progress"


@kernel
def _progress(frames, centerline):
    """(N,) distances [m] along a centerline (C, 2), from frames (N, S, 4)."""
    distances = np.empty(len(frames))
    for i in range(len(frames)):
        start, _ = project_on_line(centerline, frames[i, 0, 0], frames[i, 0, 1])
        end, _ = project_on_line(centerline, frames[i, -1, 0], frames[i, -1, 1])
        distances[i] = max(end - start, 0.0)
    return distances


def progress(motion: Motion, surroundings: Surroundings) -> Measurement:
    """Distances of N plans along the centerline [m], still to be normalised. Events: the same."""
    distances = _progress(motion.frames, surroundings.centerline)
    return Measurement(distances, {"progress": distances})


def normalise_v1(distances: np.ndarray, products: np.ndarray, best: np.ndarray) -> np.ndarray:
    """(N,) EP of v1.1.

    Args:
        distances: (N,) along the centerline [m].
        products: (N,) of the multiplicative metrics.
        best: (N,) the larger product with the distance, of PDM-Closed and the plan [m].
    """
    enough = best > MIN_BEST
    return np.where(enough, distances * products / np.where(enough, best, 1.0), products != 0.0)


def normalise_v2(distances: np.ndarray, products: np.ndarray, best: np.ndarray) -> np.ndarray:
    """(N,) EP of v2.2. The arguments are those of `normalise_v1`."""
    enough = best > MIN_BEST
    return np.where(enough, np.clip(distances / np.where(enough, best, 1.0), 0.0, 1.0), 1.0)


def _violated(scores: Scores) -> np.ndarray:
    """Progress is violated where the distance itself falls short, not where a collision sets the value to 0."""
    share = scores.events["progress"] / np.maximum(scores.events["reference_progress"], STEP)
    values = scores.columns[EGO_PROGRESS.column]
    return (values < 1.0) & ~(np.maximum(values, share) >= ENOUGH)


def _facts(scene: Scene, scores: Scores, row: int) -> dict:
    distance, reference = float(scores.events["progress"][row]), float(scores.events["reference_progress"][row])
    return {"quantity": PROGRESS, "measured": distance, "limit": reference}


EGO_PROGRESS = Metric(
    column="ego_progress",
    short="EP",
    label="slow",
    measure=progress,
    sentence="Progress {measured} of {limit}.",
    rank=70,
    facts=_facts,
    violated=_violated,
    events={"progress": "[m] distance along the centerline"},
)
