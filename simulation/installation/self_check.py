"""A small case with stored scores: do the compiled scorer, plain NumPy and the stored scores agree on this machine?

Run as a module with NUMBA_DISABLE_JIT=1, it prints the scores of the same sources without compilation. The stored
scores were made in this way.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from mtdrive.simulation.dynamics import sample_plans, simulate
from mtdrive.simulation.errors import MTDriveError
from mtdrive.simulation.metrics.registry import VERSIONS
from mtdrive.simulation.runtime.kernels import KERNEL_CACHE
from mtdrive.simulation.scene import STEP, DrivableMap, MapLayer, ObjectType, Observation, Polygons
from mtdrive.simulation.scoring import score_states

STORED = Path(__file__).with_suffix(".json")
TOLERANCE = 1e-9
DELETE = f"delete {KERNEL_CACHE} and try again"
NUM_STEPS = 51
RADIUS = 60.0  # [m] of the road, a left bend that starts at the ego
LANE_WIDTH = 3.5  # [m]
SPEED = 8.0  # [m/s]


def check_numerics() -> float:
    """Largest difference between the compiled, the plain and the stored scores of the case.

    Raises:
        MTDriveError: they differ by more than TOLERANCE, or cannot be computed; says which, and the cure.
    """
    try:
        compiled = scores_of_case()
    except Exception as error:  # a damaged file of compiled code can raise almost any exception
        raise MTDriveError(f"The compiled scorer does not run ({type(error).__name__}: {error}); {DELETE}.") from error
    return compare(compiled, plain_scores(), json.loads(STORED.read_text()))


def compare(compiled: dict[str, list[float]], plain: dict[str, list[float]], stored: dict[str, list[float]]) -> float:
    """Largest difference between three results of `scores_of_case`.

    Raises:
        MTDriveError: they differ by more than TOLERANCE; says which, and the cure.
    """
    uncompiled, name = difference(compiled, plain)
    if not uncompiled <= TOLERANCE:
        raise MTDriveError(f"Compiled {name} is off by {uncompiled:.1e} from the same code in plain NumPy; {DELETE}.")
    since_stored, name = difference(plain, stored)
    if not since_stored <= TOLERANCE:
        raise MTDriveError(f"NumPy here gives a {name} that is off by {since_stored:.1e}; install another numpy build.")
    return max(uncompiled, since_stored)


def difference(one: dict[str, list[float]], other: dict[str, list[float]]) -> tuple[float, str]:
    """Largest difference and the name of the value that differs most; NaN beside a number counts as infinite."""
    gaps = {name: np.nan_to_num(np.abs(np.subtract(one[name], other[name])), nan=np.inf).max() for name in one}
    name = max(gaps, key=gaps.__getitem__)
    return float(gaps[name]), name


def plain_scores() -> dict[str, list[float]]:
    """`scores_of_case` without compilation, in a process of its own.

    Raises:
        MTDriveError: the process failed.
    """
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise MTDriveError(f"The scorer does not run in plain NumPy: {reason}.")
    return json.loads(done.stdout)


def scores_of_case() -> dict[str, list[float]]:
    """Sub-metrics, scores and last states of twelve plans in a bend with traffic, by name."""
    plans = sample_plans(_plans(), 0.5, 1_600_000_000_000_000)
    states = simulate(plans, np.array([SPEED, 0.0]), np.array([0.3, 0.0]))
    arc = np.linspace(0.0, 1.5, 60)
    centerline = np.column_stack([*_on_bend(RADIUS, arc).T, arc])
    numbers = {"last states": states[:, -1].ravel().tolist()}
    for metric in VERSIONS:
        scores = score_states(states, _traffic(), _road(), centerline, metric, reference_progress=25.0)
        numbers |= {f"{metric} {name}": values.tolist() for name, values in scores.columns.items()}
        numbers |= {f"{metric} score": scores.score.tolist()}
        numbers |= {f"{metric} comfort peaks": scores.events["comfort_peak"].ravel().tolist()}
    return numbers


def _on_bend(radius: float, arc: np.ndarray) -> np.ndarray:
    """(n, 2) points of a circle around (0, RADIUS), from below it on."""
    return np.column_stack([radius * np.sin(arc), RADIUS - radius * np.cos(arc)])


def _plans() -> np.ndarray:
    """(12, 8, 3): round the bend, too wide and too narrow, with four accelerations."""
    seconds = np.arange(1, 9) * 0.5
    plans = []
    for radius in (RADIUS, RADIUS + 8.0, RADIUS - 14.0):
        for acceleration in (-2.4, -1.2, -0.3, 3.5):
            arc = (SPEED * seconds + acceleration * seconds**2 / 2) / radius
            plans.append(np.column_stack([radius * np.sin(arc), radius * (1 - np.cos(arc)), arc]))
    return np.stack(plans)


def _traffic() -> Observation:
    """A slow car ahead, an oncoming one, a barrier beyond the bend, a pedestrian; a light that turns green."""
    start = np.array([[18.0, 2.7, 0.3], [45.0, 9.0, -2.6], [50.0, 40.0, 1.0], [16.0, -3.0, 1.4]])
    speed = np.array([4.0, 6.0, 0.0, 0.4])
    poses = np.repeat(start[None], NUM_STEPS, axis=0)
    travelled = np.arange(NUM_STEPS)[:, None] * STEP * speed
    poses[..., 0] += travelled * np.cos(start[:, 2])
    poses[..., 1] += travelled * np.sin(start[:, 2])
    return Observation(
        tokens=np.array(["ahead", "oncoming", "barrier", "pedestrian"]),
        kind=np.array([ObjectType.VEHICLE, ObjectType.VEHICLE, ObjectType.BARRIER, ObjectType.PEDESTRIAN], np.int8),
        size=np.array([[4.6, 1.9], [4.6, 1.9], [2.0, 0.5], [0.7, 0.7]]),
        first_heading=start[:, 2].copy(),
        first_speed=speed,
        poses=poses,
        present=np.ones((NUM_STEPS, len(start)), dtype=bool),
        light_ids=np.array(["crossing"]),
        light_polygons=_polygons(_sector(RADIUS - 2.0, RADIUS + 2.0, 0.45, 0.6)),
        light_red=np.arange(NUM_STEPS)[:, None] < 38,
        ignored=np.zeros(len(start), dtype=bool),
    )


def _road() -> DrivableMap:
    """The ego's lane, the one beside it, their roadblock, and an intersection in the bend."""
    inner, outer = RADIUS - LANE_WIDTH / 2, RADIUS + LANE_WIDTH / 2
    return DrivableMap(
        polygons=_polygons(
            _sector(inner - LANE_WIDTH, outer + 0.3, -0.2, 1.6),
            _sector(inner, outer, -0.2, 1.6),
            _sector(inner - LANE_WIDTH, inner, -0.2, 1.6),
            _sector(inner - 2 * LANE_WIDTH, outer + LANE_WIDTH, 0.45, 0.6),
        ),
        layer=np.array([MapLayer.ROADBLOCK, MapLayer.LANE, MapLayer.LANE, MapLayer.INTERSECTION], dtype=np.int8),
        ids=np.array(["block", "lane", "beside", "intersection"]),
        on_route=np.array([False, True, False, False]),
    )


def _sector(inner: float, outer: float, start: float, end: float) -> np.ndarray:
    """Closed ring (n, 2) of the bend between two radii and two angles."""
    arc = np.linspace(start, end, 24)
    ring = np.concatenate([_on_bend(outer, arc), _on_bend(inner, arc[::-1])])
    return np.concatenate([ring, ring[:1]])


def _polygons(*rings: np.ndarray) -> Polygons:
    sizes = [len(ring) for ring in rings]
    return Polygons(
        xy=np.concatenate(rings),
        ring_start=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        polygon_start=np.arange(len(rings) + 1, dtype=np.int64),
        bounds=np.array([[*ring.min(axis=0), *ring.max(axis=0)] for ring in rings]),
    )


if __name__ == "__main__":
    print(json.dumps(scores_of_case()))
