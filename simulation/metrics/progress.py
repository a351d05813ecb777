"""Ego progress (EP): the way along the centerline, relative to what PDM-Closed earns.

The way is the footprint centre's, from the first to the last step, at least 0. A plan earns its way times its
multiplicative metrics. If the best of PDM-Closed and the plan (of all proposals, in PDM-Closed's own scoring) earns
more than 5 m, v1.1 divides what the plan earns by it, and v2.2 its way, clipped to 1. Otherwise the value is 1; in
v1.1, 0 if a multiplicative metric is 0 (navsim `PDMScorer._calculate_progress`, `_aggregate_scores`).
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
ENOUGH = 0.95  # of PDM-Closed's; from there on a plan counts as clean
PROGRESS = "progress"


@kernel
def _progress(frames, centerline):
    ways = np.empty(len(frames))
    for i in range(len(frames)):
        start, _ = project_on_line(centerline, frames[i, 0, 0], frames[i, 0, 1])
        end, _ = project_on_line(centerline, frames[i, -1, 0], frames[i, -1, 1])
        ways[i] = max(end - start, 0.0)
    return ways


def progress(motion: Motion, surroundings: Surroundings) -> Measurement:
    """Way of each plan [m], to be normalised."""
    ways = _progress(motion.frames, surroundings.centerline)
    return Measurement(ways, {"progress": ways})


def normalise_v1(ways: np.ndarray, products: np.ndarray, best: np.ndarray) -> np.ndarray:
    """EP of v1.1 from ways (N,) [m], multiplicative products (N,) and the best earnings (N,) [m]."""
    enough = best > MIN_BEST
    return np.where(enough, ways * products / np.where(enough, best, 1.0), products != 0.0)


def normalise_v2(ways: np.ndarray, products: np.ndarray, best: np.ndarray) -> np.ndarray:
    """EP of v2.2, from the same."""
    enough = best > MIN_BEST
    return np.where(enough, np.clip(ways / np.where(enough, best, 1.0), 0.0, 1.0), 1.0)


def _violated(scores: Scores) -> np.ndarray:
    """Progress fails where the way itself falls short, not where a collision sets the sub-metric to 0."""
    way = scores.events["progress"] / np.maximum(scores.events["reference_progress"], STEP)
    values = scores.columns[EGO_PROGRESS.column]
    return (values < 1.0) & ~(np.maximum(values, way) >= ENOUGH)


def _facts(scene: Scene, scores: Scores, row: int) -> dict:
    way, reference = float(scores.events["progress"][row]), float(scores.events["reference_progress"][row])
    return {"quantity": PROGRESS, "measured": way, "limit": reference}


EGO_PROGRESS = Metric(
    column="ego_progress",
    short="EP",
    label="slow",
    measure=progress,
    sentence="Progress {measured} of {limit}.",
    rank=70,
    facts=_facts,
    violated=_violated,
    events={"progress": "[m] way along the centerline"},
)
